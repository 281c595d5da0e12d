// What runs steps: the ranks of the deployment, with their back ends, weights and the memory of the
// KV cache. Holds no scheduler state and knows no requests. Owned by the engine; the loop thread
// alone calls it.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/comm/membership.h"
#include "engine/model/step_cost.h"
#include "engine/moe/exchange_call.h"
#include "engine/moe/expert_placement.h"
#include "engine/moe/route_plan.h"
#include "engine/scheduler/step_plan.h"
#include "kernels/backend.h"

namespace gatehouse {

struct StepResult {
  std::vector<RowSample> samples;  // one for each plan.logit_rows
  std::vector<uint8_t>
      row_failed;  // [num_rows]: a value that is not finite; the row's request must end
  std::vector<RoutePlan> routes;  // one a MoE layer, ascending
  StepCost cost;
  std::vector<RankExchanges> exchanges;  // [num_ranks]; empty: there is one
};

// Who takes part from now on, and whose caches hold nothing: of ranks that have come, have gone, or
// have gone and come back.
struct Regrouped {
  Membership membership;
  std::vector<int> emptied;  // ascending
};

class Worker {
 public:
  virtual ~Worker() = default;
  // Where the experts of each MoE layer lie, a device for each rank; and between two steps, where
  // those of one lie from now on. Results do not depend on it.
  virtual const std::vector<ExpertPlacement>& placements() const = 0;
  virtual void Place(int moe_layer_idx, const ExpertPlacement& placement) = 0;
  // `sampling` has one entry for each of plan.logit_rows. An error is the machine's: it concerns
  // every sequence of the plan, and the worker can be used again afterwards. UNAVAILABLE: ranks
  // were lost, and the step can be made again once the others have regrouped.
  virtual absl::StatusOr<StepResult> Run(const StepPlan& plan,
                                         std::span<const RowSampling> sampling) = 0;
  virtual const Membership& membership() const = 0;
  // Whether ranks are lost, or are there and do not take part yet.
  virtual bool needs_regroup() const = 0;
  // Between two steps; waits for ranks that are there, seconds at most. What lies on ranks that are
  // not in the group has to be placed anew. UNAVAILABLE when none could be formed.
  virtual absl::StatusOr<Regrouped> Regroup() = 0;
};

}  // namespace gatehouse
