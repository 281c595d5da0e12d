// One rank: the back end, its share of the weights and the memory of the KV cache. Runs steps;
// holds no scheduler state and knows no requests. Owned by the engine; the loop thread alone calls
// it.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
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

class Worker {
 public:
  virtual ~Worker() = default;
  // Where the experts of each MoE layer lie, a device for each rank; and between two steps, where
  // those of one lie from now on. Results do not depend on it.
  virtual const std::vector<ExpertPlacement>& placements() const = 0;
  virtual void Place(int moe_layer_idx, const ExpertPlacement& placement) = 0;
  // `sampling` has one entry for each of plan.logit_rows. An error is the machine's: it concerns
  // every sequence of the plan, and the worker can be used again afterwards.
  virtual absl::StatusOr<StepResult> Run(const StepPlan& plan,
                                         std::span<const RowSampling> sampling) = 0;
};

}  // namespace gatehouse
