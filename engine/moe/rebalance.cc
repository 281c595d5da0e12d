#include "engine/moe/rebalance.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "engine/moe/balanced_placement.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

bool KeepsTerms(const PlacementProblem& problem, const ExpertPlacement& placement) {
  std::vector<int64_t> num_free(problem.slots.begin(), problem.slots.end());
  for (const int32_t device : placement.copy_devices) {
    if (--num_free[device] < 0) return false;
  }
  return placement.num_copies() <= placement.num_experts() + problem.num_replicas;
}

RebalancePlan PlanTo(const PlacementProblem& problem, const ExpertPlacement& current,
                     ExpertPlacement next) {
  RebalancePlan plan{.placement = std::move(next)};
  plan.change = MovesBetween(current, plan.placement);
  plan.imbalance = PredictedImbalance(current, problem.loads);
  plan.planned_imbalance = PredictedImbalance(plan.placement, problem.loads);
  return plan;
}

// What is saved within the horizon less what the copies cost, in pairs on one mean device.
double NetGain(const RebalancePlan& plan, const RebalancePolicy& policy) {
  const double saved =
      policy.horizon_pairs / plan.placement.num_devices * (plan.imbalance - plan.planned_imbalance);
  // Every copy as if it held all up, though devices send and receive side by side.
  return saved - policy.copy_cost_pairs * static_cast<double>(plan.change.copies.size());
}

RebalanceVerdict Judge(const RebalancePlan& plan, double num_pairs, const RebalancePolicy& policy) {
  if (num_pairs < policy.min_pairs_per_device * plan.placement.num_devices) {
    return RebalanceVerdict::kTooFewPairs;
  }
  if (plan.change.empty() || plan.gain() < policy.min_gain) return RebalanceVerdict::kTooLittleGain;
  return NetGain(plan, policy) > 0 ? RebalanceVerdict::kWorthIt : RebalanceVerdict::kCostsTooMuch;
}

}  // namespace

absl::StatusOr<RebalancePlan> PlanRebalance(const PlacementProblem& problem,
                                            const ExpertPlacement& current, double num_pairs,
                                            const RebalancePolicy& policy) {
  GATEHOUSE_ASSIGN_OR_RETURN(const ExpertPlacement anew, BalancedPlacement(problem));
  if (current.num_experts() != anew.num_experts() || current.num_devices != anew.num_devices) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "the current placement: got %d experts on %d devices, expected %d on %d",
        current.num_experts(), current.num_devices, anew.num_experts(), anew.num_devices));
  }
  ExpertPlacement now = current;
  now.throughput = problem.throughput;  // as measured since
  RebalancePlan plan = PlanTo(problem, now, KeepInPlace(problem, now, anew));
  if (KeepsTerms(problem, now)) {
    RebalancePlan refined = PlanTo(problem, now, RefinePlacement(problem, now));
    // Fewer copies take less of what steps differ in, which the loads do not show.
    const bool as_many = refined.placement.num_copies() >= plan.placement.num_copies();
    const double net_gain = NetGain(plan, policy);
    if (NetGain(refined, policy) >= net_gain && (as_many || net_gain <= 0)) {
      plan = std::move(refined);
    }
  }
  plan.verdict = Judge(plan, num_pairs, policy);
  return plan;
}

}  // namespace gatehouse
