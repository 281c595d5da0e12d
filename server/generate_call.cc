#include "server/generate_call.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"
#include "server/grpc_status.h"
#include "server/trace_context.h"

namespace gatehouse {
namespace {

std::string TraceparentOf(const grpc::CallbackServerContext& context) {
  const auto found = context.client_metadata().find("traceparent");
  if (found == context.client_metadata().end()) return "";
  return ReadTraceparent({found->second.data(), found->second.size()});
}

// How much earlier than here a deadline may pass at the client.
constexpr Duration kDeadlineSlack = std::chrono::milliseconds(50);

// A request that is refused for something else keeps the client's id, too.
std::string ChooseId(const std::string& clients, const std::string& default_id) {
  return clients.empty() || !CheckRequestId(clients).ok() ? default_id : clients;
}

}  // namespace

GenerateCall::GenerateCall(const CallParts& parts, grpc::CallbackServerContext* context,
                           const v1::GenerateRequest* request, const std::string& default_id,
                           std::shared_ptr<const TenantPolicy> policy)
    : parts_(parts),
      context_(context),
      request_(request),
      start_(parts.clock.Now()),
      deadline_(ToTimePoint(context->deadline(), parts.clock)),
      traceparent_(TraceparentOf(*context)),
      id_(ChooseId(request->request_id(), default_id)),
      policy_(std::move(policy)),
      queue_(parts.limits, parts.clock) {
  converter_.set_request_id(id_);
}

void GenerateCall::Start(const absl::Status& admission) {
  if (!admission.ok()) return Refuse(admission);
  const size_t num_bytes = request_->ByteSizeLong();
  if (absl::Status taken = parts_.open_bytes.Take(num_bytes); !taken.ok()) {
    return Refuse(std::move(taken));
  }
  taken_bytes_ = num_bytes;
  if (num_bytes <= kMaxInlineBytes) return Submit();
  absl::Status waits = parts_.front.Run(policy_->tenant->name, num_bytes,
                                        [self = shared_from_this()] { self->Submit(); });
  if (!waits.ok()) Refuse(std::move(waits));
}

absl::StatusOr<Engine::Ticket> GenerateCall::SubmitToEngine() {
  // It may have waited for the front pool; nobody would read what its tokens bring.
  {
    const MutexLock lock(mutex_);
    if (cancelled_) return absl::CancelledError("the client cancelled the call");
  }
  if (parts_.clock.Now() >= deadline_) {
    return absl::DeadlineExceededError("the deadline passed before the request was read");
  }
  Engine& engine = *parts_.state.engine();
  GATEHOUSE_RETURN_IF_ERROR(engine.CheckQueueOpen(*policy_->tenant));
  const std::shared_ptr<const RoutingTable> routing = parts_.routing.Read();
  GATEHOUSE_ASSIGN_OR_RETURN(Request request, ToRequest(*request_, *policy_, *routing, engine));
  request.id = id_;
  request.deadline = deadline_;
  record_.priority = request.priority;
  record_.mode = request.mode;
  converter_.set_priority(request.priority);
  return engine.Submit(std::move(request), shared_from_this());
}

void GenerateCall::Submit() {
  const absl::StatusOr<Engine::Ticket> ticket = SubmitToEngine();
  if (!ticket.ok()) return Refuse(ticket.status());
  bool cancelled = false;
  {
    const MutexLock lock(mutex_);
    ticket_ = *ticket;
    cancelled = cancelled_;  // OnCancel came before there was anything to cancel
  }
  if (cancelled) parts_.state.engine()->Cancel(*ticket);
}

void GenerateCall::Refuse(absl::Status status) {
  {
    const MutexLock lock(mutex_);
    refused_ = true;
  }
  Close(std::move(status));
}

void GenerateCall::Note(const SinkEvent& event) {
  if (const auto* delta = std::get_if<DeltaEvent>(&event)) {
    record_.num_generated_tokens += static_cast<int32_t>(delta->tokens.size());
  } else if (const auto* started = std::get_if<StartedEvent>(&event)) {
    record_.state = CallSnapshot::State::kRunning;
    record_.num_prompt_tokens = started->num_prompt_tokens;
    record_.num_cached_prompt_tokens = started->num_cached_prompt_tokens;
  } else if (const auto* finished = std::get_if<FinishedEvent>(&event)) {
    record_.queue_seconds = finished->queue_seconds;
    // Of several outputs the first token of all counts.
    const double seconds = finished->time_to_first_token_seconds;
    double& first = record_.time_to_first_token_seconds;
    first = first == 0 ? seconds : std::min(first, seconds);
  }
}

bool GenerateCall::Push(SinkEvent event) {
  Note(event);
  const bool kept = queue_.Push(std::move(event));
  Pump();
  return kept;
}

void GenerateCall::Close(absl::Status status) {
  record_.state = CallSnapshot::State::kEnding;
  queue_.Close(std::move(status));
  Pump();
}

CallSnapshot GenerateCall::Snapshot() const {
  CallSnapshot snapshot{.id = id_,
                        .traceparent = traceparent_,
                        .tenant = policy_ == nullptr ? "" : policy_->tenant->name,
                        .priority = record_.priority,
                        .mode = record_.mode,
                        .state = record_.state,
                        .start = start_};
  snapshot.num_prompt_tokens = record_.num_prompt_tokens;
  snapshot.num_cached_prompt_tokens = record_.num_cached_prompt_tokens;
  snapshot.num_generated_tokens = record_.num_generated_tokens;
  snapshot.unread_bytes = queue_.unread_bytes();
  return snapshot;
}

bool GenerateCall::CancelByOperator() {
  if (record_.state == CallSnapshot::State::kEnding) return false;
  Cancel(absl::CancelledError("an operator cancelled the request"));
  return true;
}

// After Push, Close, OnWriteDone and OnCancel. The queue gives out at most one write at a time and
// one finish, so that no lock is held while calling gRPC.
void GenerateCall::Pump() {
  StreamAction next = queue_.Next();
  switch (next.kind) {
    case StreamAction::Kind::kWrite:
      converter_.Convert(std::move(next.event), response_);
      StartWrite(&response_);
      break;
    case StreamAction::Kind::kFinish:
      Report(next.status);
      Finish(FinalStatus(next.status));
      break;
    case StreamAction::Kind::kNothing:
      break;
  }
}

// A call whose deadline has passed is cancelled, too: by the client, whose clock started a little
// before ours, so its cancel may come first.
absl::Status GenerateCall::StatusOfLostClient() const {
  const bool expired = deadline_ != kNoDeadline && parts_.clock.Now() >= deadline_ - kDeadlineSlack;
  return expired ? absl::DeadlineExceededError("the deadline passed before the end")
                 : absl::CancelledError("the client cancelled the call");
}

// The write that fails may tell of the client's end before OnCancel does.
void GenerateCall::OnWriteDone(bool ok) {
  if (!ok) queue_.Abandon(StatusOfLostClient());
  queue_.WriteDone(ok);
  Pump();
}

void GenerateCall::OnCancel() { Cancel(StatusOfLostClient()); }

void GenerateCall::Cancel(absl::Status status) {
  queue_.Abandon(std::move(status));
  std::optional<Engine::Ticket> ticket;
  {
    const MutexLock lock(mutex_);
    cancelled_ = true;
    ticket = ticket_;
  }
  if (ticket) parts_.state.engine()->Cancel(*ticket);
  Pump();
}

void GenerateCall::OnDone() {
  {
    const MutexLock lock(mutex_);
    done_ = true;
  }
  parts_.open_bytes.Give(taken_bytes_);
  parts_.active.Remove(this);
}

void GenerateCall::CheckStall() {
  if (!queue_.CheckStall()) return;
  Pump();
  const TimePoint now = parts_.clock.Now();
  const MutexLock lock(mutex_);
  if (!lost_since_) lost_since_ = now;
  // The status waits behind the write that nobody reads. Once more the limit, then it is not worth
  // holding on to the call. TryCancel only asks: reactions run on other threads.
  if (!done_ && now - *lost_since_ > parts_.limits.max_unread_time) context_->TryCancel();
}

grpc::Status GenerateCall::FinalStatus(const absl::Status& status) {
  if (status.code() == absl::StatusCode::kInternal) return ToGrpcStatus(InternalError(id_));
  bool may_retry = status.code() == absl::StatusCode::kUnavailable;
  if (status.code() == absl::StatusCode::kResourceExhausted) {
    const MutexLock lock(mutex_);
    may_retry = refused_;  // the queue was full; a reader that was too slow is another matter
  }
  if (!may_retry) return ToGrpcStatus(status);
  return ToGrpcStatus(status,
                      RetryAfter(parts_.state, policy_ == nullptr ? "" : policy_->tenant->name));
}

void GenerateCall::Report(const absl::Status& status) {
  parts_.metrics.CountRequest(RpcMethod::kGenerate, status.code());
  const LogLevel level =
      status.code() == absl::StatusCode::kInternal ? LogLevel::kError : LogLevel::kInfo;
  const CallSnapshot call = Snapshot();
  parts_.logger.Log(
      level, "request",
      {{"id", id_},
       {"traceparent", traceparent_},
       {"method", "Generate"},
       {"tenant", call.tenant},
       {"mode", RoutingModeName(call.mode)},
       {"status", CodeName(status.code())},
       {"reason", TextForLog(status)},
       {"prompt_tokens", std::to_string(call.num_prompt_tokens)},
       {"cached_prompt_tokens", std::to_string(call.num_cached_prompt_tokens)},
       {"generated_tokens", std::to_string(call.num_generated_tokens)},
       {"queue_seconds", absl::StrFormat("%.6f", record_.queue_seconds)},
       {"first_token_seconds", absl::StrFormat("%.6f", record_.time_to_first_token_seconds)},
       {"total_seconds", absl::StrFormat("%.6f", ToSeconds(parts_.clock.Now() - start_))}});
}

}  // namespace gatehouse
