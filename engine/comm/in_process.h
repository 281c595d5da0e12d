// Ranks that are threads of this process: each reads what the others hold, between two meetings.
// The group outlives its communicators.
//
//   InProcessGroup group({.membership = AllRanks(2), .deadline = std::chrono::seconds(10)});
//   std::thread other([&] { group.rank(1).Barrier(); });
//   group.rank(0).Barrier();
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "engine/comm/communicator.h"
#include "engine/comm/membership.h"
#include "kernels/base/clock.h"
#include "kernels/base/mutex.h"

namespace gatehouse {

struct InProcessOptions {
  Membership membership;
  Duration deadline{};  // of one call
};

class InProcessGroup {
 public:
  explicit InProcessGroup(const InProcessOptions& options);
  ~InProcessGroup();
  InProcessGroup(const InProcessGroup&) = delete;
  InProcessGroup& operator=(const InProcessGroup&) = delete;

  Communicator& rank(int rank);  // a member

 private:
  class Rank;

  // What a rank shows to the others between two meetings.
  struct Posted {
    const AllToAllArgs* all_to_all = nullptr;
    const AllGatherArgs* all_gather = nullptr;
  };

  enum class Meeting { kBarrier, kBegin, kEnd };  // the latter two of one move

  // Returns when all ranks have come.
  absl::Status Meet(int rank, Meeting meeting) GATEHOUSE_EXCLUDES(mutex_);
  absl::Status WaitFor(uint64_t meeting) GATEHOUSE_EXCLUDES(mutex_);
  void Lose(int rank) GATEHOUSE_EXCLUDES(mutex_);
  int num_members() const { return static_cast<int>(options_.membership.members.size()); }
  int FirstMissing() const GATEHOUSE_REQUIRES(mutex_);
  absl::Status StatusOfLoss() const;

  const InProcessOptions options_;
  std::vector<std::unique_ptr<Rank>> ranks_;  // [num_ranks], null: no member
  std::vector<Posted> posted_;  // [num_ranks], each written by its rank before a meeting

  std::atomic<uint64_t> num_meetings_{0};  // that have taken place
  std::atomic<int> num_moving_{0};         // ranks that read what others have posted
  std::atomic<int> lost_rank_{-1};
  Mutex mutex_;
  CondVar met_;
  int num_present_ GATEHOUSE_GUARDED_BY(mutex_) = 0;
  std::vector<uint8_t> present_ GATEHOUSE_GUARDED_BY(mutex_);  // [num_ranks]
};

// Where the ranks of a process find each other: the first of an epoch makes its group, which lives
// as long as one of its communicators. Any thread.
class InProcessRendezvous {
 public:
  explicit InProcessRendezvous(Duration deadline) : deadline_(deadline) {}
  std::shared_ptr<Communicator> Join(const Membership& membership, int rank)
      GATEHOUSE_EXCLUDES(mutex_);

 private:
  const Duration deadline_;  // of one call
  Mutex mutex_;
  int64_t epoch_ GATEHOUSE_GUARDED_BY(mutex_) = -1;
  std::shared_ptr<InProcessGroup> group_ GATEHOUSE_GUARDED_BY(mutex_);
};

}  // namespace gatehouse
