// A rank in another process, as the engine sees it: what the group asks of it goes over the call of
// the worker that has its slot. Owned by the group; the slots outlive it.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/rank_peer.h"
#include "kernels/base/mutex.h"
#include "server/worker_call.h"
#include "server/worker_convert.h"
#include "server/worker_slots.h"

namespace gatehouse {

class RemoteRank final : public RankPeer {
 public:
  RemoteRank(WorkerSlots& slots, int rank) : slots_(slots), rank_(rank) {}

  absl::Status Join(const Membership& membership) override GATEHOUSE_EXCLUDES(mutex_);
  void Place(int moe_layer_idx, const ExpertPlacement& placement) override;
  absl::StatusOr<RankResult> Run(const RankStep& step) override;
  void Lose(int rank) override GATEHOUSE_EXCLUDES(mutex_);
  bool is_up() const override { return slots_.Up(rank_) != nullptr; }
  int64_t num_returns() const override { return slots_.num_returns(rank_); }

 private:
  WorkerSlots& slots_;
  const int rank_;
  PolicyNumbers policies_;  // that the worker of `joined` knows
  int64_t num_steps_ = 0;
  // The worker that is in the group: one that comes back is another, until it joins.
  std::shared_ptr<WorkerCall> joined_;

  Mutex mutex_;
  std::shared_ptr<WorkerCall> to_tell_ GATEHOUSE_GUARDED_BY(mutex_);  // as joined_, for Lose
  int64_t epoch_ GATEHOUSE_GUARDED_BY(mutex_) = 0;
};

}  // namespace gatehouse
