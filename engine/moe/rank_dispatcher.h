// The dispatcher of one rank of several: what rows chose is gathered from all ranks, so that every
// rank makes the same plan of all rows; then rows go to the ranks of their experts and results come
// back. Owned by the rank; used by its thread.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "engine/comm/communicator.h"
#include "engine/moe/dispatcher.h"
#include "engine/moe/exchange_call.h"
#include "engine/moe/expert_placement.h"
#include "engine/moe/step_rows.h"

namespace gatehouse {

class RankDispatcher final : public Dispatcher {
 public:
  RankDispatcher(Backend& backend, Communicator& comm) : backend_(backend), comm_(comm) {}
  // Both are the same on every rank, and stay until the step's end. `placements` [num_moe_layers]
  // have a device for each rank.
  void BeginStep(const StepRows& rows, std::span<const ExpertPlacement> placements);

  // Since BeginStep.
  RankExchanges TakeExchanges() { return std::exchange(exchanges_, {}); }

  std::span<const int32_t> own_rows() const override { return rows_->rows_of(comm_.rank()); }
  int num_rows() const override { return rows_->num_rows(); }
  absl::StatusOr<GateChoice> Gather(GateChoice own) override;
  absl::StatusOr<GateScores> Gather(GateScores own) override;
  absl::StatusOr<Dispatched> Dispatch(MatrixView<const float> x, const RoutePlan& plan,
                                      int moe_layer_idx, const MoeWorkspace& workspace) override;
  absl::Status Combine(DispatchHandle handle, MatrixView<float> out) override;

 private:
  // From records of `record_words` 4-byte words, one for each own row, to those of all rows in the
  // order of the step.
  absl::StatusOr<std::vector<uint32_t>> GatherRecords(const std::vector<uint32_t>& own,
                                                      int record_words);

  absl::Status AllToAll(ExchangePhase phase, const AllToAllArgs& args);

  Backend& backend_;
  Communicator& comm_;
  RankExchanges exchanges_;
  const StepRows* rows_ = nullptr;
  std::span<const ExpertPlacement> placements_;
};

}  // namespace gatehouse
