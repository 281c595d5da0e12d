#include "engine/lab/simulator.h"

#include <algorithm>
#include <numeric>

#include "engine/moe/bounded_router.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

GateScores ScoresOf(const TraceHeader& header, const TraceStep& step, int layer,
                    Affinity affinity) {
  const auto num_rows = static_cast<int>(step.rows.size());
  const int64_t num_ranks = int64_t{num_rows} * header.num_ranked, first = layer * num_ranks;
  GateScores scores{.num_rows = num_rows,
                    .num_experts = header.num_experts,
                    .top_k = header.top_k,
                    .num_ranked = header.num_ranked,
                    .num_chosen = std::vector<int32_t>(num_rows, header.top_k),
                    .row_failed = std::vector<uint8_t>(num_rows, 0)};
  scores.ranked_ids.assign(step.ranked_ids.begin() + first,
                           step.ranked_ids.begin() + first + num_ranks);
  scores.gate.assign(step.gate.begin() + first, step.gate.begin() + first + num_ranks);
  scores.affinity = scores.gate;
  scores.weight = scores.gate;
  for (int row = 0; row < num_rows; ++row) {
    float sum = 0;
    for (int i = 0; i < header.top_k; ++i) {
      if (scores.ranked_ids[scores.At(row, i)] < 0) scores.row_failed[row] = 1;
      sum += scores.gate[scores.At(row, i)];
    }
    if (affinity != Affinity::kShare) continue;
    for (int i = 0; i < header.num_ranked; ++i) scores.affinity[scores.At(row, i)] /= sum + 1e-20f;
  }
  return scores;
}

std::vector<RoutedToken> TokensOf(const TraceStep& step, const PinnedPolicy& policy) {
  std::vector<RoutedToken> tokens;
  for (const TraceRow& row : step.rows) {
    const bool bounded = !row.decode || policy.bound_decode;
    tokens.push_back(
        {.mode = bounded ? policy.mode : TokenMode::kExact,
         .policy_idx = 0,
         .request = row.request,
         .position = row.position,
         .domain = row.decode ? 0 : 1,
         .home_device = static_cast<int32_t>(row.request % policy.placement.num_devices),
         .tie_key = uint64_t{row.request} << 32 | row.position});
  }
  return tokens;
}

}  // namespace

ExpertPlacement PlaceWithReplicas(const ExpertLoad& load, int num_devices, int num_replicas) {
  const auto num_experts = static_cast<int>(load.size());
  const ExpertPlacement linear = LinearPlacement(num_experts, num_devices);
  std::vector<std::vector<int32_t>> copies(num_experts);
  std::vector<double> device_load(num_devices, 0);
  for (int e = 0; e < num_experts; ++e) {
    copies[e] = {linear.devices_of(e).front()};
    device_load[copies[e][0]] += static_cast<double>(load[e]);
  }
  std::vector<int> by_load(num_experts);
  std::iota(by_load.begin(), by_load.end(), 0);
  std::stable_sort(by_load.begin(), by_load.end(), [&](int a, int b) { return load[a] > load[b]; });
  for (int i = 0; num_devices > 1 && i < std::min(num_replicas, num_experts); ++i) {
    const int e = by_load[i];
    const int32_t first = copies[e][0];
    int32_t best = first == 0 ? 1 : 0;
    for (int32_t d = 0; d < num_devices; ++d) {
      if (d != first && device_load[d] < device_load[best]) best = d;
    }
    device_load[first] -= static_cast<double>(load[e]) / 2;
    device_load[best] += static_cast<double>(load[e]) / 2;
    copies[e].push_back(best);
    std::sort(copies[e].begin(), copies[e].end());
  }
  ExpertPlacement placement{.num_devices = num_devices, .copy_begin = {0}};
  placement.throughput.assign(num_devices, 1);
  for (const std::vector<int32_t>& devices : copies) {
    placement.copy_devices.insert(placement.copy_devices.end(), devices.begin(), devices.end());
    placement.copy_begin.push_back(placement.num_copies());
  }
  return placement;
}

absl::Status Simulator::Add(const TraceStep& step) {
  const std::vector<RoutedToken> bounded = TokensOf(step, policy_);
  for (int layer = 0; layer < header_.num_moe_layers; ++layer) {
    std::vector<RoutedToken> tokens = bounded;
    if (policy_.layer_exempt[layer] != 0) {
      for (RoutedToken& token : tokens) token.mode = TokenMode::kExact;
    }
    const GateScores scores = ScoresOf(header_, step, layer, policy_.affinity);
    LayerPolicy rules{.policy = &policy_.policy, .placement = &policy_.placement};
    if (!policy_.thresholds.empty()) rules.thresholds = policy_.thresholds[layer];
    const RowLimits no_limits;
    GATEHOUSE_ASSIGN_OR_RETURN(const RouteDecision decision,
                               RouteBounded({.scores = scores,
                                             .tokens = tokens,
                                             .policies = {&rules, 1},
                                             .placement = policy_.placement,
                                             .limits = no_limits}));
    meter_.OnLayer(layer, scores, decision);
  }
  return absl::OkStatus();
}

}  // namespace gatehouse
