#include "engine/moe/dispatcher.h"

#include <numeric>
#include <utility>

#include "kernels/base/check.h"

namespace gatehouse {

void LocalDispatcher::BeginStep(int num_rows) {
  rows_.resize(num_rows);
  std::iota(rows_.begin(), rows_.end(), 0);
}

absl::StatusOr<Dispatcher::Dispatched> LocalDispatcher::Dispatch(MatrixView<const float> x,
                                                                 const RoutePlan& plan,
                                                                 int /*moe_layer_idx*/,
                                                                 const MoeWorkspace& workspace) {
  GATEHOUSE_CHECK(plan.num_pairs() <= workspace.expert_rows.num_rows)
      << plan.num_pairs() << " pairs of " << workspace.expert_rows.num_rows;
  const MatrixView<float> rows = workspace.expert_rows.FirstRows(plan.num_pairs());
  Dispatched dispatched{.batch = {.x = x,
                                  .groups = plan.groups(),
                                  .hidden = workspace.hidden.FirstRows(plan.num_pairs()),
                                  .out = rows}};
  dispatched.handle.plan = &plan;
  dispatched.handle.expert_rows = rows;
  return dispatched;
}

absl::Status LocalDispatcher::Combine(DispatchHandle handle, MatrixView<float> out) {
  const RoutePlan& plan = *handle.plan;
  backend_.Combine({.expert_rows = handle.expert_rows,
                    .token_begin = plan.token_begin,
                    .assignment_ids = plan.assignment_ids,
                    .weights = plan.weights,
                    .out = out});
  return absl::OkStatus();
}

}  // namespace gatehouse
