#include "engine/faulty_rank.h"

#include <thread>

#include "absl/strings/str_format.h"

namespace gatehouse {

absl::StatusOr<RankResult> FaultyRank::Run(const RankStep& step) {
  const auto lost = [this](const char* what) {
    return absl::UnavailableError(absl::StrFormat("rank %d %s, as asked for", rank_, what));
  };
  std::this_thread::sleep_for(board_->DelayOf(rank_));
  if (board_->TakeLostMessage(rank_)) return lost("was not heard");
  if (board_->IsDead(rank_)) return lost("has died");
  absl::StatusOr<RankResult> result = sound_->Run(step);
  if (board_->IsDead(rank_)) return lost("has died");  // meanwhile: nobody gets its result
  return result;
}

}  // namespace gatehouse
