#include "engine/lab/layer_placements.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "engine/moe/balanced_placement.h"
#include "engine/moe/eplb.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {

absl::StatusOr<LayerPlacements> LayerPlacements::Make(const PlacementChoice& choice,
                                                      const std::vector<double>& throughput,
                                                      const LayerLoads& loads) {
  const auto num_layers = static_cast<int>(loads.size());
  const auto num_experts = static_cast<int>(loads.front().size());
  const auto num_devices = static_cast<int>(throughput.size());
  const bool in_order = choice.name == "linear" || choice.name == "round-robin";
  ExpertPlacement start = choice.name == "round-robin"
                              ? RoundRobinPlacement(num_experts, num_devices)
                              : LinearPlacement(num_experts, num_devices);
  start.throughput = throughput;
  LayerPlacements placements(start, num_layers);
  if (in_order) return placements;

  PlacementProblem problem{.throughput = throughput, .num_replicas = choice.num_replicas};
  const int64_t num_copies = int64_t{num_experts} + choice.num_replicas;
  problem.slots.assign(num_devices,
                       static_cast<int32_t>((num_copies + num_devices - 1) / num_devices));
  for (int layer = 0; layer < num_layers; ++layer) {
    problem.loads.assign(loads[layer].begin(), loads[layer].end());
    if (choice.name == "eplb") {
      GATEHOUSE_ASSIGN_OR_RETURN(placements.layers_[layer], EplbPlacement(problem));
    } else if (choice.name == "balanced") {
      GATEHOUSE_ASSIGN_OR_RETURN(placements.layers_[layer], BalancedPlacement(problem));
    } else if (choice.name != "rebalanced") {
      return absl::InvalidArgumentError(
          absl::StrFormat("placement: got '%s', expected linear, round-robin, eplb, balanced or "
                          "rebalanced",
                          choice.name));
    }
  }
  if (choice.name == "rebalanced") {
    GATEHOUSE_ASSIGN_OR_RETURN(placements.forecast_,
                               LoadForecast::Make(num_layers, num_experts, choice.half_life_pairs));
    placements.policy_.horizon_pairs = choice.half_life_pairs;
    placements.problem_ = std::move(problem);
    placements.rebalance_steps_ = choice.rebalance_steps;
  }
  return placements;
}

absl::Status LayerPlacements::Add(const LayerLoads& loads) {
  if (!forecast_.has_value()) return absl::OkStatus();
  ++num_steps_;
  for (int layer = 0; layer < forecast_->num_layers(); ++layer) {
    GATEHOUSE_RETURN_IF_ERROR(forecast_->Add(layer, loads[layer]));
    if (num_steps_ % rebalance_steps_ != 0) continue;
    problem_.loads = forecast_->Shares(layer);
    GATEHOUSE_ASSIGN_OR_RETURN(
        RebalancePlan plan,
        PlanRebalance(problem_, layers_[layer], forecast_->num_pairs(layer), policy_));
    if (plan.verdict != RebalanceVerdict::kWorthIt) continue;
    ++num_rebalances_;
    num_moves_ += static_cast<int64_t>(plan.change.copies.size());
    predicted_gain_ += plan.gain();
    layers_[layer] = std::move(plan.placement);
  }
  return absl::OkStatus();
}

double LayerPlacements::mean_predicted_gain() const {
  return predicted_gain_ / static_cast<double>(std::max<int64_t>(num_rebalances_, 1));
}

}  // namespace gatehouse
