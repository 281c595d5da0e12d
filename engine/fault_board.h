// Faults on purpose, for drills and tests: what is wrong with which rank at the moment.
//
// Shared by the engine, which takes what an operator asks for, and the ranks, which obey
// (faulty_rank.h). Any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/base/clock.h"
#include "kernels/base/mutex.h"

namespace gatehouse {

enum class FaultKind {
  kSlowRank,     // its part of each step takes longer by `delay`, for `duration`
  kDeadRank,     // it takes part in nothing for `duration`, then comes back with an empty cache
  kLostMessage,  // what it sends in its next step does not arrive
  kFullCache,    // the sequences that run on it lose their blocks once
};

struct Fault {
  FaultKind kind = FaultKind::kSlowRank;
  int rank = 0;
  Duration duration{};
  Duration delay{};
};

class FaultBoard {
 public:
  // `clock` outlives the board.
  FaultBoard(int num_ranks, const Clock& clock) : clock_(clock), ranks_(num_ranks) {}

  // INVALID_ARGUMENT: no such rank, or rank 0, whose death is the server's.
  absl::Status Inject(const Fault& fault) GATEHOUSE_EXCLUDES(mutex_);

  bool IsDead(int rank) const GATEHOUSE_EXCLUDES(mutex_);
  int64_t num_deaths(int rank) const GATEHOUSE_EXCLUDES(mutex_);
  Duration DelayOf(int rank) const GATEHOUSE_EXCLUDES(mutex_);
  // Whether the step that begins is the one whose message is lost.
  bool TakeLostMessage(int rank) GATEHOUSE_EXCLUDES(mutex_);

 private:
  struct Rank {
    TimePoint dead_until{};
    int64_t num_deaths = 0;
    TimePoint slow_until{};
    Duration delay{};
    bool loses_message = false;
  };

  const Clock& clock_;
  mutable Mutex mutex_;
  std::vector<Rank> ranks_ GATEHOUSE_GUARDED_BY(mutex_);
};

}  // namespace gatehouse
