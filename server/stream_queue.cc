#include "server/stream_queue.h"

#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/base/check.h"

namespace gatehouse {
namespace {

constexpr size_t kEventBytes = 16;  // framing of one message

size_t TokenBytes(const TokenOutput& token) {
  size_t num_bytes = 16 + token.bytes.size() + 12 * token.top.size();
  if (token.routed_experts) {
    num_bytes += 3 * token.routed_experts->expert_ids.size();
    num_bytes += 4 * token.routed_experts->weights.size();
  }
  return num_bytes;
}

size_t TokensBytes(const std::vector<TokenOutput>& tokens) {
  size_t num_bytes = 0;
  for (const TokenOutput& token : tokens) num_bytes += TokenBytes(token);
  return num_bytes;
}

void Append(DeltaEvent&& from, DeltaEvent& to) {
  to.text += from.text;
  to.tokens.insert(to.tokens.end(), std::make_move_iterator(from.tokens.begin()),
                   std::make_move_iterator(from.tokens.end()));
}

// Splits off the first tokens of `event`, as many as fit into `max_bytes` but at least one; leaves
// the others.
PromptEvent TakeChunk(size_t max_bytes, PromptEvent& event) {
  size_t num_bytes = 0, num_tokens = 0;
  while (num_tokens < event.tokens.size()) {
    num_bytes += TokenBytes(event.tokens[num_tokens]);
    if (num_tokens > 0 && num_bytes > max_bytes) break;
    ++num_tokens;
  }
  PromptEvent chunk{.first_position = event.first_position, .tokens = {}};
  const auto end = event.tokens.begin() + static_cast<std::ptrdiff_t>(num_tokens);
  chunk.tokens.assign(std::make_move_iterator(event.tokens.begin()), std::make_move_iterator(end));
  event.tokens.erase(event.tokens.begin(), end);
  event.first_position += static_cast<int32_t>(num_tokens);
  return chunk;
}

}  // namespace

size_t EventBytes(const SinkEvent& event) {
  if (const auto* delta = std::get_if<DeltaEvent>(&event)) {
    return kEventBytes + delta->text.size() + TokensBytes(delta->tokens);
  }
  if (const auto* prompt = std::get_if<PromptEvent>(&event)) {
    return kEventBytes + TokensBytes(prompt->tokens);
  }
  if (const auto* started = std::get_if<StartedEvent>(&event)) {
    return kEventBytes + 3 * started->prompt_token_ids.size();
  }
  return kEventBytes + 96 + std::get<FinishedEvent>(event).matched_stop.size();
}

bool StreamQueue::IsStalled() const {
  return write_in_flight_ && clock_.Now() - write_started_ > limits_.max_unread_time;
}

void StreamQueue::Lose(absl::Status status) {
  if (lost_) return;
  lost_ = true;
  status_ = std::move(status);
  events_.clear();
  prompt_bytes_ = other_bytes_ = 0;
}

// The outputs of a request take turns, so what waits for one of them stands a few events before the
// end. Nothing but deltas is passed over: an output's own finish would be.
StreamQueue::Waiting* StreamQueue::LastDeltaOf(int32_t output_index) {
  for (auto waiting = events_.rbegin(); waiting != events_.rend(); ++waiting) {
    const auto* delta = std::get_if<DeltaEvent>(&waiting->event);
    if (delta == nullptr) return nullptr;
    if (delta->output_index == output_index) return &*waiting;
  }
  return nullptr;
}

void StreamQueue::Enqueue(SinkEvent event) {
  const size_t num_bytes = EventBytes(event);
  if (auto* delta = std::get_if<DeltaEvent>(&event)) {
    Waiting* const last = LastDeltaOf(delta->output_index);
    if (last != nullptr && last->num_bytes + num_bytes <= limits_.max_message_bytes) {
      Append(std::move(*delta), std::get<DeltaEvent>(last->event));
      last->num_bytes += num_bytes - kEventBytes;
      other_bytes_ += num_bytes - kEventBytes;
      return;
    }
  }
  (std::holds_alternative<PromptEvent>(event) ? prompt_bytes_ : other_bytes_) += num_bytes;
  events_.push_back({std::move(event), num_bytes});
}

bool StreamQueue::Push(SinkEvent event) {
  const MutexLock lock(mutex_);
  GATEHOUSE_CHECK(state_ == State::kOpen) << "an event after Close";
  if (lost_) return false;
  Enqueue(std::move(event));
  if (other_bytes_ > limits_.max_unread_bytes) {
    Lose(absl::ResourceExhaustedError(
        absl::StrFormat("the client reads too slowly: %u bytes wait to be read, the limit is %u",
                        other_bytes_, limits_.max_unread_bytes)));
  } else if (prompt_bytes_ > limits_.max_unread_prompt_bytes) {
    Lose(absl::ResourceExhaustedError(absl::StrFormat(
        "the client reads too slowly: %u bytes of the prompt wait to be read, the limit is %u",
        prompt_bytes_, limits_.max_unread_prompt_bytes)));
  } else if (IsStalled()) {
    Lose(absl::ResourceExhaustedError(
        absl::StrFormat("the client reads too slowly: it took nothing for %g seconds",
                        ToSeconds(limits_.max_unread_time))));
  }
  return !lost_;
}

void StreamQueue::Close(absl::Status status) {
  const MutexLock lock(mutex_);
  GATEHOUSE_CHECK(state_ == State::kOpen) << "a second Close";
  state_ = State::kClosed;
  if (lost_) return;
  status_ = std::move(status);
  // A request that failed sends what it has: the text before a drain or a deadline is of use.
}

void StreamQueue::Abandon(absl::Status status) {
  const MutexLock lock(mutex_);
  const bool all_written = state_ == State::kClosed && events_.empty() && !write_in_flight_;
  if (state_ == State::kFinished || all_written) return;
  Lose(std::move(status));
}

bool StreamQueue::CheckStall() {
  const MutexLock lock(mutex_);
  if (state_ != State::kFinished && !lost_ && IsStalled()) {
    Lose(absl::ResourceExhaustedError(
        absl::StrFormat("the client reads too slowly: it took nothing for %g seconds",
                        ToSeconds(limits_.max_unread_time))));
  }
  return lost_;
}

SinkEvent StreamQueue::TakeFront() {
  Waiting& front = events_.front();
  auto* prompt = std::get_if<PromptEvent>(&front.event);
  size_t& unread = prompt != nullptr ? prompt_bytes_ : other_bytes_;
  unread -= front.num_bytes;
  if (prompt != nullptr && front.num_bytes > limits_.max_message_bytes) {
    SinkEvent chunk = TakeChunk(limits_.max_message_bytes, *prompt);
    if (!prompt->tokens.empty()) {
      front.num_bytes = EventBytes(front.event);
      unread += front.num_bytes;
      return chunk;
    }
    front.event = std::move(chunk);  // one token larger than a chunk
  }
  SinkEvent event = std::move(front.event);
  events_.pop_front();
  return event;
}

StreamAction StreamQueue::Next() {
  const MutexLock lock(mutex_);
  if (write_in_flight_ || state_ == State::kFinished) return {};
  if (!events_.empty()) {
    write_in_flight_ = true;
    write_started_ = clock_.Now();
    return {.kind = StreamAction::Kind::kWrite, .event = TakeFront(), .status = {}};
  }
  if (state_ != State::kClosed) return {};
  state_ = State::kFinished;
  return {.kind = StreamAction::Kind::kFinish, .event = {}, .status = status_};
}

void StreamQueue::WriteDone(bool ok) {
  const MutexLock lock(mutex_);
  GATEHOUSE_CHECK(write_in_flight_) << "no write was in flight";
  write_in_flight_ = false;
  if (!ok) Lose(absl::CancelledError("the connection to the client is gone"));
}

size_t StreamQueue::unread_bytes() const {
  const MutexLock lock(mutex_);
  return other_bytes_ + prompt_bytes_;
}

}  // namespace gatehouse
