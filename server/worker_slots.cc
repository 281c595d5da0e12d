#include "server/worker_slots.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "server/worker_convert.h"

namespace gatehouse {

WorkerSlots::WorkerSlots(int num_workers)
    : num_ranks_(1 + num_workers),
      board_([this](const BoardKey& key) { Publish(key, /*from_rank=*/0); }),
      slots_(num_ranks_) {}

absl::StatusOr<int> WorkerSlots::Take(const std::shared_ptr<WorkerCall>& call,
                                      std::optional<int> last_rank) {
  const MutexLock lock(mutex_);
  std::vector<int> wanted;
  if (last_rank && *last_rank >= 1 && *last_rank < num_ranks_) wanted.push_back(*last_rank);
  for (int r = 1; r < num_ranks_; ++r) wanted.push_back(r);
  for (const int r : wanted) {
    if (slots_[r].call != nullptr) continue;
    slots_[r].call = call;
    call->set_rank(r);
    return r;
  }
  return absl::AlreadyExistsError(
      absl::StrFormat("all %d workers of the deployment are there", num_ranks_ - 1));
}

void WorkerSlots::SetUp(const WorkerCall& call) {
  const MutexLock lock(mutex_);
  if (call.rank() < 0) return;
  Slot& slot = slots_[call.rank()];
  if (slot.call.get() != &call) return;
  ++slot.num_joins;
  slot.is_up = true;
  changed_.NotifyAll();
}

void WorkerSlots::Leave(const WorkerCall& call) {
  std::shared_ptr<WorkerCall> left;  // dies after the lock is free
  int64_t epoch = -1;
  {
    const MutexLock lock(mutex_);
    const int r = call.rank();
    if (r < 0 || slots_[r].call.get() != &call) return;
    left = std::exchange(slots_[r].call, nullptr);
    if (std::exchange(slots_[r].is_up, false) && group_.has(r)) epoch = group_.epoch;
  }
  if (epoch >= 0) EndEpoch(epoch, call.rank());
}

void WorkerSlots::WaitUntilAllUp() {
  const MutexLock lock(mutex_);
  while (std::count_if(slots_.begin(), slots_.end(), [](const Slot& slot) { return slot.is_up; }) <
         num_ranks_ - 1) {
    changed_.Wait(mutex_);
  }
}

std::vector<std::shared_ptr<WorkerCall>> WorkerSlots::Taken() const {
  const MutexLock lock(mutex_);
  std::vector<std::shared_ptr<WorkerCall>> calls;
  for (const Slot& slot : slots_) {
    if (slot.call != nullptr) calls.push_back(slot.call);
  }
  return calls;
}

std::shared_ptr<WorkerCall> WorkerSlots::Up(int rank) const {
  const MutexLock lock(mutex_);
  return slots_[rank].is_up ? slots_[rank].call : nullptr;
}

int64_t WorkerSlots::num_returns(int rank) const {
  const MutexLock lock(mutex_);
  return std::max<int64_t>(0, slots_[rank].num_joins - 1);
}

absl::Status WorkerSlots::BeginEpoch(const Membership& membership) {
  const MutexLock lock(mutex_);
  group_ = membership;
  for (const int r : membership.members) {
    if (r == 0 || slots_[r].is_up) continue;
    return absl::UnavailableError(absl::StrFormat("rank %d lost in epoch %d", r, membership.epoch));
  }
  return absl::OkStatus();
}

void WorkerSlots::EndEpoch(int64_t epoch, int rank) {
  board_.End(epoch);
  v1::WorkerCommand command;
  command.mutable_lost()->set_epoch(epoch);
  command.mutable_lost()->set_rank(rank);
  SendToOthers(command, rank);
}

void WorkerSlots::Publish(const BoardKey& key, int from_rank) {
  if (from_rank != 0) board_.Put(key);
  v1::WorkerCommand command;
  *command.mutable_key() = ToProto(key);
  SendToOthers(command, from_rank);
}

void WorkerSlots::SendToOthers(const v1::WorkerCommand& command, int but_rank) {
  for (const std::shared_ptr<WorkerCall>& call : Taken()) {
    if (call->rank() != but_rank) call->Send(command);
  }
}

}  // namespace gatehouse
