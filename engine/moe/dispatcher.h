// Brings rows to their experts and their results back, within one rank (LocalDispatcher) or between
// many (rank_dispatcher.h). State between the two calls is the handle: two layers may be in flight
// at once. Owned by the rank; used by its thread.
//
//   choice = dispatcher.Gather(choice);              // of all rows of the step
//   auto [batch, handle] = dispatcher.Dispatch(x, plan, workspace);
//   experts.Run(backend, batch);
//   dispatcher.Combine(std::move(handle), out);
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/moe/gate.h"
#include "engine/moe/gate_scores.h"
#include "engine/moe/rank_traffic.h"
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
  // Where there are several ranks.
  MatrixView<float> received_rows;  // [max_rows, hidden] from all ranks
  MatrixView<float> returned_rows;  // [max_rows * top_k, hidden] of own rows
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
struct DispatchHandle {
  DispatchHandle() = default;
  DispatchHandle(DispatchHandle&&) = default;
  DispatchHandle& operator=(DispatchHandle&&) = default;

  const RoutePlan* plan = nullptr;
  MatrixView<const float> expert_rows;
  RankTraffic traffic;              // between ranks
  MatrixView<float> returned_rows;  // likewise
};

// What can fail is the exchange between ranks (engine/comm/communicator.h).
class Dispatcher {
 public:
  struct Dispatched {
    ExpertBatch batch;
    DispatchHandle handle;
  };

  virtual ~Dispatcher() = default;
  // The step's rows that are this rank's.
  virtual std::span<const int32_t> own_rows() const = 0;
  virtual int num_rows() const = 0;  // of the step
  // From what own rows chose to what all rows of the step did.
  virtual absl::StatusOr<GateChoice> Gather(GateChoice own) = 0;
  virtual absl::StatusOr<GateScores> Gather(GateScores own) = 0;
  // x [own rows, hidden]; `plan` is of all rows of the step, in the MoE layer of that index.
  virtual absl::StatusOr<Dispatched> Dispatch(MatrixView<const float> x, const RoutePlan& plan,
                                              int moe_layer_idx, const MoeWorkspace& workspace) = 0;
  // out [own rows, hidden] = weighted sum of each row's expert results by ascending expert id (rule
  // R17).
  virtual absl::Status Combine(DispatchHandle handle, MatrixView<float> out) = 0;
};

// On one rank no row moves: experts read rows where they are, by index. Never fails.
class LocalDispatcher final : public Dispatcher {
 public:
  explicit LocalDispatcher(Backend& backend) : backend_(backend) {}
  void BeginStep(int num_rows);

  std::span<const int32_t> own_rows() const override { return rows_; }
  int num_rows() const override { return static_cast<int>(rows_.size()); }
  absl::StatusOr<GateChoice> Gather(GateChoice own) override { return own; }
  absl::StatusOr<GateScores> Gather(GateScores own) override { return own; }
  absl::StatusOr<Dispatched> Dispatch(MatrixView<const float> x, const RoutePlan& plan,
                                      int moe_layer_idx, const MoeWorkspace& workspace) override;
  absl::Status Combine(DispatchHandle handle, MatrixView<float> out) override;

 private:
  Backend& backend_;
  std::vector<int32_t> rows_;  // 0, 1, ..
};

}  // namespace gatehouse
