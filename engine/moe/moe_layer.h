// A Mixture-of-Experts feed-forward layer: score, decide, send, compute, bring back.
// Owned by the transformer's weights, which ranks of one process share; used by a rank's thread.
#pragma once

#include <optional>
#include <span>
#include <utility>

#include "absl/status/statusor.h"
#include "engine/moe/dispatcher.h"
#include "engine/moe/experts.h"
#include "engine/moe/gate.h"
#include "engine/moe/route_plan.h"
#include "engine/moe/shared_expert.h"
#include "engine/moe/step_routing.h"

namespace gatehouse {

class MoeLayer {
 public:
  MoeLayer(Gate gate, Experts experts, std::optional<SharedExpert> shared)
      : placement_(LinearPlacement(gate.num_experts(), 1)),
        gate_(std::move(gate)),
        experts_(std::move(experts)),
        shared_(std::move(shared)) {}

  // Which rows of which layer of the step.
  struct Step {
    const StepRouting& routing;     // of all rows of the step
    int moe_layer_idx = 0;          // among the MoE layers
    std::span<uint8_t> row_failed;  // [own rows]: set where the gate fails, or the row's request
  };
  // out [own rows, hidden] = the experts' weighted sum for x [own rows, hidden], and the shared
  // one. Returns what was decided of all rows of the step, for reports; failed rows get 0 from the
  // routed experts. What can fail is the dispatcher.
  absl::StatusOr<RoutePlan> Forward(Backend& backend, Dispatcher& dispatcher,
                                    MatrixView<const float> x, const Step& step,
                                    const MoeWorkspace& workspace, MatrixView<float> out) const;

 private:
  absl::StatusOr<RoutePlan> Route(Backend& backend, Dispatcher& dispatcher,
                                  MatrixView<const float> x, const Step& step,
                                  MatrixView<float> logits) const;
  absl::StatusOr<RoutePlan> Choose(Backend& backend, Dispatcher& dispatcher,
                                   MatrixView<const float> x, const Step& step,
                                   MatrixView<float> logits) const;

  const ExpertPlacement placement_;  // of exact rows: one device
  Gate gate_;
  Experts experts_;
  std::optional<SharedExpert> shared_;
};

}  // namespace gatehouse
