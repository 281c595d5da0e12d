#include "engine/lab/simulator.h"

#include <vector>

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

std::vector<RoutedToken> TokensOf(const TraceStep& step, const PinnedPolicy& policy,
                                  int num_devices) {
  std::vector<RoutedToken> tokens;
  for (const TraceRow& row : step.rows) {
    const bool bounded = !row.decode || policy.bound_decode;
    tokens.push_back({.mode = bounded ? policy.mode : TokenMode::kExact,
                      .policy_idx = 0,
                      .request = row.request,
                      .position = row.position,
                      .domain = row.decode ? 0 : 1,
                      .home_device = static_cast<int32_t>(row.request % num_devices),
                      .tie_key = uint64_t{row.request} << 32 | row.position});
  }
  return tokens;
}

}  // namespace

void AddLoads(const TraceHeader& header, const TraceStep& step, LayerLoads& loads) {
  const size_t num_ranks = step.rows.size() * header.num_ranked;
  for (int layer = 0; layer < header.num_moe_layers; ++layer) {
    for (size_t i = 0; i < num_ranks; ++i) {
      const int32_t expert = step.ranked_ids[layer * num_ranks + i];
      const bool chosen = static_cast<int32_t>(i % header.num_ranked) < header.top_k;
      if (chosen && expert >= 0) ++loads[layer][expert];
    }
  }
}

absl::Status Simulator::Add(const TraceStep& step) {
  const std::vector<RoutedToken> bounded = TokensOf(step, policy_, placements_.num_devices());
  for (int layer = 0; layer < header_.num_moe_layers; ++layer) {
    std::vector<RoutedToken> tokens = bounded;
    if (policy_.layer_exempt[layer] != 0) {
      for (RoutedToken& token : tokens) token.mode = TokenMode::kExact;
    }
    const GateScores scores = ScoresOf(header_, step, layer, policy_.affinity);
    const ExpertPlacement& placement = placements_.layers()[layer];
    LayerPolicy rules{.policy = &policy_.policy, .placement = &placement};
    if (!policy_.thresholds.empty()) rules.thresholds = policy_.thresholds[layer];
    const RowLimits no_limits;
    GATEHOUSE_ASSIGN_OR_RETURN(const RouteDecision decision, RouteBounded({.scores = scores,
                                                                           .tokens = tokens,
                                                                           .policies = {&rules, 1},
                                                                           .placement = placement,
                                                                           .limits = no_limits}));
    meter_.OnLayer(layer, scores, decision);
  }
  LayerLoads loads(header_.num_moe_layers, std::vector<int64_t>(header_.num_experts, 0));
  AddLoads(header_, step, loads);
  return placements_.Add(loads);
}

}  // namespace gatehouse
