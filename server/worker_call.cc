#include "server/worker_call.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_format.h"
#include "server/grpc_status.h"
#include "server/heartbeat.h"
#include "server/worker_convert.h"

namespace gatehouse {
namespace {

absl::Status Lost(int rank) {
  return absl::UnavailableError(absl::StrFormat("rank %d is lost", rank));
}

}  // namespace

WorkerCall::WorkerCall(WorkerCallOwner& owner, grpc::CallbackServerContext& context)
    : owner_(owner),
      context_(context),
      peer_(context.peer()),
      last_heard_(std::chrono::steady_clock::now()) {}

void WorkerCall::Begin() { StartRead(&read_); }

void WorkerCall::Send(v1::WorkerCommand command) {
  {
    const MutexLock lock(mutex_);
    if (end_) return;
    queue_.push_back(std::move(command));
  }
  Pump();
}

// At most one write is under way; Finish comes when none is.
void WorkerCall::Pump() {
  absl::Status end;
  {
    const MutexLock lock(mutex_);
    if (writing_ || finished_) return;
    if (end_) {
      finished_ = true;
      end = *end_;
    } else if (queue_.empty()) {
      return;
    } else {
      writing_ = true;
      written_ = std::move(queue_.front());
      queue_.pop_front();
    }
  }
  if (!end.ok()) return Finish(ToGrpcStatus(end));
  StartWrite(&written_);
}

void WorkerCall::End(const absl::Status& status) {
  {
    const MutexLock lock(mutex_);
    if (std::exchange(ending_, true)) return;
  }
  owner_.OnEnd(*this, status);  // first: whoever wakes finds the rank down
  {
    const MutexLock lock(mutex_);
    end_ = status;
    queue_.clear();
    changed_.NotifyAll();
  }
  Pump();
}

void WorkerCall::Beat(bool was_held_up) {
  const TimePoint now = std::chrono::steady_clock::now();
  if (was_held_up) last_heard_.store(now);
  bool ended = false, idle = false, stuck = false;
  {
    const MutexLock lock(mutex_);
    ended = end_.has_value();
    idle = !ended && queue_.empty() && !writing_;
    stuck = ended && writing_;
  }
  if (stuck) Cut();  // it takes nothing: it cannot be told why
  if (ended) return;
  if (now - last_heard_.load() > kSilence) {
    return End(absl::AbortedError(
        absl::StrFormat("rank %d was silent for %.0f s and is lost: it may join again", rank(),
                        ToSeconds(kSilence))));
  }
  if (!idle) return;  // what waits says it, too
  v1::WorkerCommand command;
  command.mutable_heartbeat();
  Send(std::move(command));
}

absl::Status WorkerCall::AwaitFormed(int64_t epoch) {
  const MutexLock lock(mutex_);
  while (!end_) {
    if (formed_ && formed_->epoch() == epoch) {
      return formed_->has_error() ? FromProto(formed_->error()) : absl::OkStatus();
    }
    changed_.Wait(mutex_);
  }
  return Lost(rank());
}

absl::StatusOr<v1::RankStepResult> WorkerCall::AwaitResult(int64_t step) {
  const MutexLock lock(mutex_);
  while (!end_) {
    if (result_ && result_->step() == step) {
      v1::RankStepResult result = *std::move(result_);
      result_.reset();
      return result;
    }
    changed_.Wait(mutex_);
  }
  return Lost(rank());
}

void WorkerCall::OnReadDone(bool ok) {
  if (!ok) return End(absl::AbortedError("the connection broke"));
  last_heard_.store(std::chrono::steady_clock::now());
  Receive();
  {
    const MutexLock lock(mutex_);
    if (end_) return;
  }
  StartRead(&read_);
}

void WorkerCall::Receive() {
  switch (read_.message_case()) {
    case v1::WorkerMessage::kHello:
      return owner_.OnHello(*this, read_.hello());
    case v1::WorkerMessage::kLoaded:
      return owner_.OnLoaded(*this, read_.loaded());
    case v1::WorkerMessage::kKey:
      return owner_.OnKey(*this, read_.key());
    case v1::WorkerMessage::kFormed: {
      const MutexLock lock(mutex_);
      formed_ = std::move(*read_.mutable_formed());
      return changed_.NotifyAll();
    }
    case v1::WorkerMessage::kResult: {
      const MutexLock lock(mutex_);
      result_ = std::move(*read_.mutable_result());
      return changed_.NotifyAll();
    }
    case v1::WorkerMessage::kHeartbeat:
    case v1::WorkerMessage::MESSAGE_NOT_SET:
      return;
  }
}

void WorkerCall::OnWriteDone(bool ok) {
  {
    const MutexLock lock(mutex_);
    writing_ = false;
  }
  if (!ok) End(absl::AbortedError("the connection broke"));
  Pump();
}

void WorkerCall::OnCancel() { End(absl::AbortedError("the connection broke")); }

void WorkerCall::Cut() {
  const MutexLock lock(context_mutex_);
  if (!gone_) context_.TryCancel();
}

void WorkerCall::OnDone() {
  {
    const MutexLock lock(context_mutex_);
    gone_ = true;
  }
  owner_.OnGone(this);
}

}  // namespace gatehouse
