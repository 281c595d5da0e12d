#include "engine/moe/dispatcher.h"

#include "kernels/base/check.h"

namespace gatehouse {

Dispatcher::Dispatched Dispatcher::Dispatch(MatrixView<const float> x, const RoutePlan& plan,
                                            const MoeWorkspace& workspace) const {
  GATEHOUSE_CHECK(plan.num_pairs() <= workspace.expert_rows.num_rows)
      << plan.num_pairs() << " pairs of " << workspace.expert_rows.num_rows;
  const MatrixView<float> rows = workspace.expert_rows.FirstRows(plan.num_pairs());
  return {.batch = {.x = x,
                    .groups = plan.groups(),
                    .hidden = workspace.hidden.FirstRows(plan.num_pairs()),
                    .out = rows},
          .handle = DispatchHandle(plan, rows)};
}

void Dispatcher::Combine(DispatchHandle handle, MatrixView<float> out) const {
  const RoutePlan& plan = *handle.plan_;
  backend_.Combine({.expert_rows = handle.expert_rows_,
                    .token_begin = plan.token_begin,
                    .assignment_ids = plan.assignment_ids,
                    .weights = plan.weights,
                    .out = out});
}

}  // namespace gatehouse
