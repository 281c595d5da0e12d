// Whether experts should move, and where to: the decision alone. Pure functions; any thread.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "engine/moe/eplb.h"
#include "engine/moe/expert_placement.h"
#include "engine/moe/placement_change.h"

namespace gatehouse {

struct RebalancePolicy {
  // Of the experts' time. Of 64 equally wanted devices chance alone makes the busiest look 2.4
  // standard deviations too busy: 3.8% at min_pairs_per_device.
  double min_gain = 0.05;
  double min_pairs_per_device = 4000;
  // An expert's weights are as long on their way as this many pairs take to compute: 9.4 MB in
  // bf16 over 10 Gbit/s against 9.4 MFLOP a pair at 200 GFLOP/s.
  double copy_cost_pairs = 160;
  // Pairs for which the forecast is believed: those by which it forgets half.
  double horizon_pairs = 1e6;
};

enum class RebalanceVerdict {
  kWorthIt,
  kTooFewPairs,    // the forecast rests on chance
  kTooLittleGain,  // less than min_gain
  kCostsTooMuch,   // the copies take longer than what they save within the horizon
};

struct RebalancePlan {
  RebalanceVerdict verdict = RebalanceVerdict::kTooFewPairs;
  ExpertPlacement placement;
  PlacementChange change;        // from the current one
  double imbalance = 1;          // PredictedImbalance of the current one
  double planned_imbalance = 1;  // and of the planned one

  // The predicted share of the experts' time that is saved: steps take as long as the busiest
  // device.
  double gain() const { return 1 - planned_imbalance / imbalance; }
};

// The better, by what it saves less what its copies cost, of `current` refined and of a placement
// from nothing with devices numbered so that little moves. `num_pairs` is what the loads rest on.
// Fails as EplbPlacement does; INVALID_ARGUMENT where `current` is of other experts or devices.
absl::StatusOr<RebalancePlan> PlanRebalance(const PlacementProblem& problem,
                                            const ExpertPlacement& current, double num_pairs,
                                            const RebalancePolicy& policy);

}  // namespace gatehouse
