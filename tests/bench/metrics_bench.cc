// What counting a step costs the engine's thread, on one core: from the plans of its MoE layers to
// the numbers that /metrics shows. Beside it belongs the step itself (model_bench): the requirement
// is one percent of it.
//
//   model_q    24 layers of 32 experts, 8 a token
//   largest    61 layers of 256 experts, 8 a token
#include <benchmark/benchmark.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "engine/moe/bounded_router.h"
#include "engine/moe/router.h"
#include "kernels/base/check.h"
#include "server/prometheus_metrics.h"

namespace gatehouse {
namespace {

constexpr int kTopK = 8, kNumRanked = 16;

GateScores RandomScores(int num_rows, int num_experts) {
  GateScores scores{
      .num_rows = num_rows, .num_experts = num_experts, .top_k = kTopK, .num_ranked = kNumRanked};
  std::mt19937 random(1);
  std::vector<int32_t> order(num_experts);
  std::iota(order.begin(), order.end(), 0);
  for (int row = 0; row < num_rows; ++row) {
    std::shuffle(order.begin(), order.end(), random);
    for (int i = 0; i < kNumRanked; ++i) {
      const float gate = 0.2f / static_cast<float>(i + 1);
      scores.ranked_ids.push_back(order[i]);
      scores.gate.push_back(gate);
      scores.affinity.push_back(gate);
      scores.weight.push_back(gate);
    }
  }
  scores.num_chosen.assign(num_rows, kTopK);
  scores.row_failed.assign(num_rows, 0);
  return scores;
}

// Rows in one shared domain under a device bound.
RoutePlan BoundedPlan(const GateScores& scores, std::vector<RoutedToken>& tokens) {
  std::mt19937_64 random(2);
  for (int row = 0; row < scores.num_rows; ++row) {
    tokens.push_back({.mode = TokenMode::kShared,
                      .policy_idx = 0,
                      .position = row,
                      .home_device = row % 8,
                      .tie_key = random()});
  }
  RoutingPolicy policy;
  policy.capacity.factor = 1.1;
  policy.capacity.device_factor = 1.0;
  policy.reroute = kTopK;
  const ExpertPlacement placement = LinearPlacement(scores.num_experts, 8);
  const LayerPolicy rules{.policy = &policy, .placement = &placement};
  const RowLimits no_limits;
  const auto decision = RouteBounded({.scores = scores,
                                      .tokens = tokens,
                                      .policies = {&rules, 1},
                                      .placement = placement,
                                      .limits = no_limits});
  GATEHOUSE_CHECK(decision.ok()) << decision.status().ToString();
  return PlanOf(*decision, scores);
}

// Metrics at level 2.
void CountStep(benchmark::State& state, int num_layers, int num_experts, int num_rows) {
  ModelDescription model;
  model.name = "model";
  model.num_experts = num_experts;
  for (int layer = 0; layer < num_layers; ++layer) model.moe_layers.push_back(layer);
  PrometheusMetrics metrics({.version = "", .backend = "", .isa = ""}, 2);
  metrics.SetModel(model);
  std::vector<RoutedToken> tokens;
  const RoutePlan plan = BoundedPlan(RandomScores(num_rows, num_experts), tokens);
  StepStats stats;
  stats.num_prefill_tokens = num_rows;
  for (auto _ : state) {
    stats.layer_loads.clear();
    for (int layer = 0; layer < num_layers; ++layer) {
      stats.layer_loads.push_back(LayerLoadOf(layer, plan, tokens));
    }
    metrics.OnStep(stats);
  }
}

BENCHMARK_CAPTURE(CountStep, model_q_1_row, 24, 32, 1)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(CountStep, model_q_32_rows, 24, 32, 32)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(CountStep, model_q_512_rows, 24, 32, 512)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(CountStep, largest_1_row, 61, 256, 1)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(CountStep, largest_512_rows, 61, 256, 512)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace gatehouse

BENCHMARK_MAIN();
