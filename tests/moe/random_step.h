// Random steps for the tests of bounded routing: gate values with ties, requests, devices and a
// policy drawn at random.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "engine/moe/bounded_router.h"

namespace gatehouse {

// A random step that owns what RoutingStep refers to.
struct RandomStep {
  GateScores scores;
  std::vector<RoutedToken> tokens;
  RoutingPolicy policy;
  std::vector<float> thresholds;
  ExpertPlacement placement;
  RowLimits limits;

  RouteDecision Decide() const {
    const LayerPolicy rules{.policy = &policy, .placement = &placement, .thresholds = thresholds};
    absl::StatusOr<RouteDecision> decision = RouteBounded({.scores = scores,
                                                           .tokens = tokens,
                                                           .policies = {&rules, 1},
                                                           .placement = placement,
                                                           .limits = limits});
    EXPECT_TRUE(decision.ok()) << decision.status();
    return *std::move(decision);
  }
};

// A row with these gate values [num_experts], which are its affinities and weights as well.
inline void AppendRow(RandomStep& step, const std::vector<float>& gate) {
  GateScores& scores = step.scores;
  std::vector<int32_t> order(scores.num_experts);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return gate[a] > gate[b]; });
  for (const int32_t e : order) {
    scores.ranked_ids.push_back(e);
    scores.gate.push_back(gate[e]);
    scores.affinity.push_back(gate[e]);
    scores.weight.push_back(gate[e]);
  }
  scores.num_chosen.push_back(scores.top_k);
  scores.row_failed.push_back(0);
  ++scores.num_rows;
}

// Gate values in steps of 1/16, so that ties occur.
inline void AppendRow(RandomStep& step, std::mt19937& random) {
  std::vector<float> gate(step.scores.num_experts);
  for (float& p : gate) p = static_cast<float>(random() % 16 + 1) / 16;
  AppendRow(step, gate);
}

inline RandomStep MakeStep(std::mt19937& random, TokenMode mode) {
  RandomStep made;
  const int n = 1 + random() % 8, devices = 1 + random() % 3, rows = random() % 14;
  made.scores.num_experts = made.scores.num_ranked = n;
  made.scores.top_k = 1 + random() % n;
  made.placement = LinearPlacement(n, devices);
  made.limits = {std::vector<int64_t>(n, kNoBound), std::vector<int64_t>(devices, kNoBound)};
  std::vector<uint64_t> keys(rows);
  std::iota(keys.begin(), keys.end(), random());
  std::shuffle(keys.begin(), keys.end(), random);
  for (int row = 0; row < rows; ++row) {
    AppendRow(made, random);
    made.tokens.push_back({.mode = mode,
                           .policy_idx = 0,
                           .request = row % 3,
                           .position = row / 3,
                           .domain = 0,
                           .home_device = static_cast<int32_t>(random() % devices),
                           .tie_key = keys[row]});
  }
  made.policy.capacity.min_mean_load = 0;
  if (random() % 2 == 0) made.policy.capacity.factor = 0.25 + (random() % 8) * 0.25;
  if (random() % 4 == 0) made.policy.capacity.capacity = random() % 4;
  if (random() % 2 == 0) made.policy.capacity.device_factor = 0.5 + (random() % 4) * 0.25;
  if (random() % 3 == 0) made.policy.capacity.affinity_mass = 0.5;
  made.policy.reroute = random() % (n + 1);
  made.policy.reroute_ratio = (random() % 3) * 0.5;
  made.policy.coverage = random() % 2 == 0;
  made.policy.renormalise_after_drop = random() % 2 == 0;
  made.policy.block_tokens = 1 + random() % 4;
  made.thresholds.assign(n, static_cast<float>(random() % 16) / 16);
  return made;
}

}  // namespace gatehouse
