// Brings rows to their experts and their results back. State between the two calls is the handle:
// two layers may be in flight at once. On one rank no row moves: experts read rows where they are,
// by index.
//
//   auto [batch, handle] = dispatcher.Dispatch(x, plan, workspace);
//   experts.Run(batch);
//   dispatcher.Combine(std::move(handle), out);
#pragma once

#include "engine/moe/route_plan.h"
#include "kernels/backend.h"

namespace gatehouse {

// Memory that one MoE layer in flight needs, sized for the longest step. Owned by the transformer.
struct MoeWorkspace {
  MatrixView<float> logits;       // [max_rows, num_experts]
  MatrixView<float> hidden;       // [max_rows * top_k, intermediate]
  MatrixView<float> expert_rows;  // [max_rows * top_k, hidden]
  // Where there is a shared expert.
  MatrixView<float> shared_hidden;  // [max_rows, its intermediate]
  MatrixView<float> shared_rows;    // [max_rows, hidden]
  MatrixView<float> shared_gates;   // [max_rows, 1]
};

// What the experts of this rank compute.
struct ExpertBatch {
  MatrixView<const float> x;  // rows that groups.row_ids speak of
  ExpertGroups groups;
  MatrixView<float> hidden;  // [num_assignments, intermediate] workspace
  MatrixView<float> out;     // [num_assignments, hidden]
};

// Move-only: consumed by the Combine that ends the exchange. Points into the plan and the
// workspace.
class DispatchHandle {
 public:
  DispatchHandle(const RoutePlan& plan, MatrixView<const float> expert_rows)
      : plan_(&plan), expert_rows_(expert_rows) {}
  DispatchHandle(DispatchHandle&&) = default;
  DispatchHandle& operator=(DispatchHandle&&) = default;

 private:
  friend class Dispatcher;
  const RoutePlan* plan_;
  MatrixView<const float> expert_rows_;
};

class Dispatcher {
 public:
  struct Dispatched {
    ExpertBatch batch;
    DispatchHandle handle;
  };

  explicit Dispatcher(Backend& backend) : backend_(backend) {}
  Dispatched Dispatch(MatrixView<const float> x, const RoutePlan& plan,
                      const MoeWorkspace& workspace) const;
  // out [num_rows, hidden] = weighted sum of each row's expert results by ascending expert id (rule
  // R17).
  void Combine(DispatchHandle handle, MatrixView<float> out) const;

 private:
  Backend& backend_;
};

}  // namespace gatehouse
