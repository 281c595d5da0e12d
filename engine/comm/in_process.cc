#include "engine/comm/in_process.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "absl/strings/str_format.h"
#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

// Ranks come to a meeting within microseconds of each other when their work is even. Yielding lets
// more ranks than cores make progress.
constexpr auto kSpin = std::chrono::microseconds(50);

double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

class InProcessGroup::Rank final : public Communicator {
 public:
  Rank(InProcessGroup& group, int rank) : group_(group), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return group_.options_.membership.num_ranks; }
  CommStats stats() const override { return stats_; }
  absl::Status Barrier() override { return Meet(Meeting::kBarrier); }
  void Lose(int rank) override { group_.Lose(rank); }

  absl::Status AllToAll(const AllToAllArgs& args) override {
    group_.posted_[rank_].all_to_all = &args;
    const int32_t num_own_rows = args.send_begin[rank_ + 1] - args.send_begin[rank_];
    stats_.bytes_sent +=
        (args.send_begin[size()] - num_own_rows) * static_cast<int64_t>(args.send.row_bytes);
    return Move([&](int from) { Take(from, *group_.posted_[from].all_to_all, args); });
  }

  absl::Status AllGather(const AllGatherArgs& args) override {
    group_.posted_[rank_].all_gather = &args;
    stats_.bytes_sent += static_cast<int64_t>(args.send.size()) * (group_.num_members() - 1);
    return Move([&](int from) { Take(from, *group_.posted_[from].all_gather, args); });
  }

 private:
  absl::Status Meet(Meeting meeting) {
    const auto begin = std::chrono::steady_clock::now();
    absl::Status met = group_.Meet(rank_, meeting);
    stats_.wait_seconds += SecondsSince(begin);
    return met;
  }

  // Takes from every rank, its own too, what was posted, while all hold still.
  template <typename TakeFrom>
  absl::Status Move(const TakeFrom& take_from) {
    GATEHOUSE_RETURN_IF_ERROR(Meet(Meeting::kBegin));
    const auto begin = std::chrono::steady_clock::now();
    for (const int from : group_.options_.membership.members) take_from(from);
    stats_.move_seconds += SecondsSince(begin);
    group_.num_moving_.fetch_sub(1);
    absl::Status met = Meet(Meeting::kEnd);
    // After a loss a slow rank may still be reading what this one is about to give up.
    while (!met.ok() && group_.num_moving_.load() > 0) std::this_thread::yield();
    return met;
  }

  void Take(int from, const AllGatherArgs& theirs, const AllGatherArgs& mine) {
    const auto num_bytes = static_cast<int64_t>(theirs.send.size());
    GATEHOUSE_CHECK(num_bytes == mine.receive_begin[from + 1] - mine.receive_begin[from])
        << "rank " << from << " sends " << num_bytes << " bytes";
    if (num_bytes == 0) return;
    std::memcpy(mine.receive.data() + mine.receive_begin[from], theirs.send.data(),
                theirs.send.size());
    if (from != rank_) stats_.bytes_received += num_bytes;
  }

  void Take(int from, const AllToAllArgs& theirs, const AllToAllArgs& mine) {
    const auto rows = theirs.row_ids.subspan(
        theirs.send_begin[rank_], theirs.send_begin[rank_ + 1] - theirs.send_begin[rank_]);
    const size_t row_bytes = mine.receive.row_bytes;
    GATEHOUSE_CHECK(theirs.send.row_bytes == row_bytes &&
                    static_cast<int32_t>(rows.size()) ==
                        mine.receive_begin[from + 1] - mine.receive_begin[from])
        << "rank " << from << " sends " << rows.size() << " rows of " << theirs.send.row_bytes
        << " bytes";
    std::byte* to = mine.receive.row(mine.receive_begin[from]);
    for (const int32_t row : rows) {
      std::memcpy(to, theirs.send.row(row), row_bytes);
      to += mine.receive.stride_bytes;
    }
    if (from != rank_) stats_.bytes_received += static_cast<int64_t>(rows.size() * row_bytes);
  }

  InProcessGroup& group_;
  const int rank_;
  CommStats stats_;
};

InProcessGroup::InProcessGroup(const InProcessOptions& options)
    : options_(options),
      ranks_(options.membership.num_ranks),
      posted_(options.membership.num_ranks),
      present_(options.membership.num_ranks) {
  GATEHOUSE_CHECK(num_members() >= 1) << num_members() << " members";
  for (const int r : options.membership.members) ranks_.at(r) = std::make_unique<Rank>(*this, r);
}

InProcessGroup::~InProcessGroup() = default;

Communicator& InProcessGroup::rank(int rank) { return *ranks_.at(rank); }

void InProcessGroup::Lose(int rank) {
  const MutexLock lock(mutex_);
  int none = -1;
  lost_rank_.compare_exchange_strong(none, rank);
  met_.NotifyAll();
}

absl::Status InProcessGroup::StatusOfLoss() const {
  return absl::UnavailableError(
      absl::StrFormat("rank %d lost in epoch %d", lost_rank_.load(), options_.membership.epoch));
}

int InProcessGroup::FirstMissing() const {
  for (const int r : options_.membership.members) {
    if (present_[r] == 0) return r;
  }
  return -1;  // not while somebody waits
}

absl::Status InProcessGroup::Meet(int rank, Meeting kind) {
  uint64_t meeting = 0;
  {
    const MutexLock lock(mutex_);
    if (lost_rank_.load() >= 0) return StatusOfLoss();
    meeting = num_meetings_.load() + 1;
    present_[rank] = 1;
    if (++num_present_ == num_members()) {
      num_present_ = 0;
      if (kind == Meeting::kBegin) num_moving_.store(num_members());
      std::fill(present_.begin(), present_.end(), 0);
      num_meetings_.store(meeting);
      met_.NotifyAll();
      return absl::OkStatus();
    }
  }
  return WaitFor(meeting);
}

absl::Status InProcessGroup::WaitFor(uint64_t meeting) {
  const auto begin = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - begin < kSpin) {
    if (num_meetings_.load() >= meeting) return absl::OkStatus();
    std::this_thread::yield();
  }
  const MutexLock lock(mutex_);
  while (num_meetings_.load() < meeting) {
    if (lost_rank_.load() >= 0) return StatusOfLoss();
    const auto left = options_.deadline - (std::chrono::steady_clock::now() - begin);
    if (left <= Duration::zero()) {
      lost_rank_.store(FirstMissing());
      met_.NotifyAll();
      return StatusOfLoss();
    }
    met_.WaitFor(mutex_, left);
  }
  return absl::OkStatus();
}

std::shared_ptr<Communicator> InProcessRendezvous::Join(const Membership& membership, int rank) {
  const MutexLock lock(mutex_);
  if (group_ == nullptr || epoch_ != membership.epoch) {
    epoch_ = membership.epoch;
    group_ = std::make_shared<InProcessGroup>(
        InProcessOptions{.membership = membership, .deadline = deadline_});
  }
  return {group_, &group_->rank(rank)};
}

}  // namespace gatehouse
