#include "engine/fault_board.h"

#include <utility>

#include "absl/strings/str_format.h"

namespace gatehouse {

absl::Status FaultBoard::Inject(const Fault& fault) {
  const MutexLock lock(mutex_);
  const auto num_ranks = static_cast<int>(ranks_.size());
  if (fault.rank < 0 || fault.rank >= num_ranks) {
    return absl::InvalidArgumentError(
        absl::StrFormat("rank: got %d, the deployment has %d", fault.rank, num_ranks));
  }
  Rank& rank = ranks_[fault.rank];
  const TimePoint until = clock_.Now() + fault.duration;
  switch (fault.kind) {
    case FaultKind::kDeadRank:
      if (fault.rank == 0) {
        return absl::InvalidArgumentError("rank: got 0, whose death would be the server's");
      }
      rank.dead_until = until;
      ++rank.num_deaths;
      break;
    case FaultKind::kSlowRank:
      rank.slow_until = until;
      rank.delay = fault.delay;
      break;
    case FaultKind::kLostMessage:
      rank.loses_message = true;
      break;
    case FaultKind::kFullCache:
      break;
  }
  return absl::OkStatus();
}

bool FaultBoard::IsDead(int rank) const {
  const MutexLock lock(mutex_);
  return clock_.Now() < ranks_[rank].dead_until;
}

int64_t FaultBoard::num_deaths(int rank) const {
  const MutexLock lock(mutex_);
  return ranks_[rank].num_deaths;
}

Duration FaultBoard::DelayOf(int rank) const {
  const MutexLock lock(mutex_);
  return clock_.Now() < ranks_[rank].slow_until ? ranks_[rank].delay : Duration::zero();
}

bool FaultBoard::TakeLostMessage(int rank) {
  const MutexLock lock(mutex_);
  return std::exchange(ranks_[rank].loses_message, false);
}

}  // namespace gatehouse
