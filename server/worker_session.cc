#include "server/worker_session.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_format.h"
#include "server/heartbeat.h"

namespace gatehouse {

WorkerSession::WorkerSession(v1::Deployment::Stub& stub, const std::string& token) {
  context_.set_wait_for_ready(true);
  context_.set_initial_metadata_corked(true);  // or Join would wait here, out of Cancel's reach
  if (!token.empty()) context_.AddMetadata("authorization", "Bearer " + token);
  stream_ = stub.Join(&context_);
}

absl::Status WorkerSession::Run(const v1::RankHello& hello,
                                const std::function<void(v1::WorkerCommand)>& on_command) {
  v1::WorkerMessage first;
  *first.mutable_hello() = hello;
  Send(first);  // returns once the first rank is there
  last_heard_.store(std::chrono::steady_clock::now());
  {
    const Heartbeat heartbeat([this](bool was_held_up) { Beat(was_held_up); });
    for (v1::WorkerCommand command; stream_->Read(&command); command = {}) {
      last_heard_.store(std::chrono::steady_clock::now());
      if (!command.has_heartbeat()) on_command(std::move(command));
    }
  }
  const grpc::Status ended = stream_->Finish();
  {
    const MutexLock lock(mutex_);
    if (!cancelled_.ok()) return cancelled_;
  }
  if (ended.ok()) return absl::UnavailableError("the first rank has ended the call");
  return {static_cast<absl::StatusCode>(ended.error_code()), ended.error_message()};
}

void WorkerSession::Send(const v1::WorkerMessage& message) {
  const MutexLock lock(write_mutex_);
  stream_->Write(message);
}

void WorkerSession::Cancel(const absl::Status& status) {
  {
    const MutexLock lock(mutex_);
    if (cancelled_.ok()) cancelled_ = status;
  }
  context_.TryCancel();
}

void WorkerSession::Beat(bool was_held_up) {
  const TimePoint now = std::chrono::steady_clock::now();
  if (was_held_up) last_heard_.store(now);
  if (now - last_heard_.load() > kSilence) {
    return Cancel(absl::UnavailableError(
        absl::StrFormat("nothing heard of it for %.0f s", ToSeconds(kSilence))));
  }
  v1::WorkerMessage message;
  message.mutable_heartbeat();
  Send(message);
}

}  // namespace gatehouse
