// The worker of a deployment whose ranks are all in this process: one, or several threads that
// exchange rows.
#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/comm/in_process.h"
#include "engine/comm/rank_threads.h"
#include "engine/model/step_cost.h"
#include "engine/moe/dispatcher.h"
#include "engine/moe/expert_placement.h"
#include "engine/moe/rank_dispatcher.h"
#include "engine/rank.h"
#include "engine/route_recorder.h"
#include "engine/worker.h"

namespace gatehouse {

struct LocalWorkerParts {
  std::vector<RankParts> ranks;  // at least one
  ModelCost cost;
  std::unique_ptr<RouteRecorder> recorder;  // null: nothing is recorded
  std::vector<ExpertPlacement> placements;  // [num_moe_layers] a device for each rank
};

class LocalWorker final : public Worker {
 public:
  explicit LocalWorker(LocalWorkerParts parts);

  const std::vector<ExpertPlacement>& placements() const override { return placements_; }
  void Place(int moe_layer_idx, const ExpertPlacement& placement) override {
    placements_[moe_layer_idx] = placement;
  }
  absl::StatusOr<StepResult> Run(const StepPlan& plan,
                                 std::span<const RowSampling> sampling) override;

 private:
  int num_ranks() const { return static_cast<int>(ranks_.size()); }
  void FormGroup();
  std::vector<absl::StatusOr<RankResult>> RunRanks(const StepPlan& plan, const StepRows& rows,
                                                   std::span<const RankSlice> slices,
                                                   std::span<const RowSampling> sampling);

  std::vector<std::unique_ptr<Rank>> ranks_;
  const ModelCost cost_;
  const std::unique_ptr<RouteRecorder> recorder_;  // null: nothing is recorded
  std::vector<ExpertPlacement> placements_;
  RankThreads threads_;
  // Of one rank.
  LocalDispatcher local_dispatcher_;
  // Of several: a group ends when a call of it fails, and another is formed.
  int64_t epoch_ = 0;
  std::unique_ptr<InProcessGroup> group_;
  std::vector<RankDispatcher> rank_dispatchers_;  // [num_ranks]
};

}  // namespace gatehouse
