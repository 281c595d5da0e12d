// A rank of this process: what it computes with, and its part in the exchange of rows. Owned by the
// group.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/comm/communicator.h"
#include "engine/moe/dispatcher.h"
#include "engine/moe/rank_dispatcher.h"
#include "engine/rank.h"
#include "engine/rank_peer.h"
#include "kernels/base/mutex.h"

namespace gatehouse {

// Meets the other members of a group; UNAVAILABLE when they do not come.
using JoinGroup = std::function<absl::StatusOr<std::shared_ptr<Communicator>>(
    const Membership& membership, int rank)>;

class LocalRank final : public RankPeer {
 public:
  // `join` is null where there is one rank.
  LocalRank(int rank, RankParts parts, int num_moe_layers, JoinGroup join);

  absl::Status Join(const Membership& membership) override GATEHOUSE_EXCLUDES(mutex_);
  void Place(int moe_layer_idx, const ExpertPlacement& placement) override {
    placements_[moe_layer_idx] = placement;
  }
  absl::StatusOr<RankResult> Run(const RankStep& step) override;
  void Lose(int rank) override GATEHOUSE_EXCLUDES(mutex_);
  bool is_up() const override { return true; }

 private:
  const int rank_;
  const Rank compute_;
  const JoinGroup join_;
  std::vector<ExpertPlacement> placements_;  // [num_moe_layers]
  LocalDispatcher local_dispatcher_;         // of one rank
  // Of several. The communicator outlives the dispatcher that uses it.
  Mutex mutex_;
  std::shared_ptr<Communicator> comm_ GATEHOUSE_GUARDED_BY(mutex_);
  std::optional<RankDispatcher> rank_dispatcher_;
};

}  // namespace gatehouse
