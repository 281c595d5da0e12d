// The worker of a deployment: one rank, or several that exchange rows, threads of this process or
// processes of other hosts. Ranks that are lost leave the group, those that come back join it,
// between two steps.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "engine/comm/rank_threads.h"
#include "engine/model/step_cost.h"
#include "engine/moe/expert_placement.h"
#include "engine/rank_peer.h"
#include "engine/route_recorder.h"
#include "engine/worker.h"

namespace gatehouse {

struct GroupWorkerParts {
  // At least one; the first is of this process, and always up.
  std::vector<std::unique_ptr<RankPeer>> ranks;
  ModelCost cost;
  std::unique_ptr<RouteRecorder> recorder;  // null: nothing is recorded
  std::vector<ExpertPlacement> placements;  // [num_moe_layers] a device for each rank
};

// Several ranks have to Regroup before the first step.
class GroupWorker final : public Worker {
 public:
  explicit GroupWorker(GroupWorkerParts parts);

  const std::vector<ExpertPlacement>& placements() const override { return placements_; }
  void Place(int moe_layer_idx, const ExpertPlacement& placement) override;
  absl::StatusOr<StepResult> Run(const StepPlan& plan,
                                 std::span<const RowSampling> sampling) override;
  const Membership& membership() const override { return membership_; }
  bool needs_regroup() const override;
  absl::StatusOr<Regrouped> Regroup() override;

 private:
  int num_ranks() const { return static_cast<int>(ranks_.size()); }
  std::vector<int> RanksUp() const;
  std::vector<int64_t> NumReturns() const;
  void WaitForVerdict() const;
  absl::Status JoinAll(const Membership& membership);
  std::vector<absl::StatusOr<RankResult>> RunRanks(const StepPlan& plan, const StepRows& rows,
                                                   std::span<const RankSlice> slices,
                                                   std::span<const RowSampling> sampling);
  void TellOthers(int failed_rank);

  const std::vector<std::unique_ptr<RankPeer>> ranks_;
  const ModelCost cost_;
  const std::unique_ptr<RouteRecorder> recorder_;  // null: nothing is recorded
  std::vector<ExpertPlacement> placements_;
  Membership membership_;             // of the last group that was formed
  int64_t last_epoch_ = 0;            // that was tried
  std::vector<int64_t> num_returns_;  // [num_ranks] before the group was formed
  absl::Status broken_;               // of the call that ended the group; OK: it serves
  RankThreads threads_;
};

}  // namespace gatehouse
