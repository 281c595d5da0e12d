// A rank that has the faults of a board, around one that has none. Owned by the group.
#pragma once

#include <memory>
#include <utility>

#include "engine/fault_board.h"
#include "engine/rank_peer.h"

namespace gatehouse {

class FaultyRank final : public RankPeer {
 public:
  FaultyRank(int rank, std::unique_ptr<RankPeer> sound, std::shared_ptr<FaultBoard> board)
      : rank_(rank), sound_(std::move(sound)), board_(std::move(board)) {}

  absl::Status Join(const Membership& membership) override { return sound_->Join(membership); }
  void Place(int moe_layer_idx, const ExpertPlacement& placement) override {
    sound_->Place(moe_layer_idx, placement);
  }
  absl::StatusOr<RankResult> Run(const RankStep& step) override;
  void Lose(int rank) override { sound_->Lose(rank); }
  bool is_up() const override { return sound_->is_up() && !board_->IsDead(rank_); }
  int64_t num_returns() const override { return sound_->num_returns() + board_->num_deaths(rank_); }

 private:
  const int rank_;
  const std::unique_ptr<RankPeer> sound_;
  const std::shared_ptr<FaultBoard> board_;
};

}  // namespace gatehouse
