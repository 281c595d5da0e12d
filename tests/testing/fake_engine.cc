#include "tests/testing/fake_engine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

constexpr std::string_view kEndText = "<|end|>";

}  // namespace

ByteTokenizer::ByteTokenizer(OnEncode on_encode) : on_encode_(std::move(on_encode)) {
  for (int byte = 0; byte < kEndId; ++byte) token_bytes_.emplace_back(1, static_cast<char>(byte));
  token_bytes_.emplace_back(kEndText);
}

absl::StatusOr<std::vector<int32_t>> ByteTokenizer::Encode(std::string_view text,
                                                           const EncodeOptions& options) const {
  if (on_encode_) on_encode_();
  const size_t bad = text.find('\xff');  // never part of UTF-8
  if (bad != std::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrFormat("not UTF-8 at byte %u", bad));
  }
  std::vector<int32_t> ids;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto plain = [&](const ByteRange& range) {
      return range.begin < i + kEndText.size() && i < range.end;
    };
    if (options.parse_special && text.substr(i).starts_with(kEndText) &&
        std::none_of(options.plain_ranges.begin(), options.plain_ranges.end(), plain)) {
      ids.push_back(kEndId);
      i += kEndText.size() - 1;
    } else {
      ids.push_back(static_cast<unsigned char>(text[i]));
    }
  }
  if (options.add_special_tokens) ids.insert(ids.begin(), kEndId);
  return ids;
}

absl::StatusOr<std::string> ByteTokenizer::Decode(const std::vector<int32_t>& ids,
                                                  bool skip_special_tokens) const {
  std::string text;
  for (const int32_t id : ids) {
    if (id < 0 || id > kEndId) {
      return absl::InvalidArgumentError(
          absl::StrFormat("got token id %d, must be in [0, %d]", id, kEndId));
    }
    if (id != kEndId || !skip_special_tokens) text += token_bytes_[static_cast<size_t>(id)];
  }
  return text;
}

std::string_view ByteTokenizer::TokenBytes(int32_t id) const {
  return id < 0 || id > kEndId ? std::string_view() : token_bytes_[static_cast<size_t>(id)];
}

std::optional<int32_t> ByteTokenizer::TokenToId(std::string_view token) const {
  if (token == kEndText) return kEndId;
  if (token.size() != 1) return std::nullopt;
  return static_cast<unsigned char>(token[0]);
}

FakeEngine::FakeEngine(const FakeEngineOptions& options, const Clock& clock, StepObserver& observer)
    : options_(options),
      clock_(clock),
      observer_(observer),
      tokenizer_(options.on_encode),
      last_step_(clock.Now()) {
  if (!options.chat_template.empty()) {
    chat_template_ = *ChatTemplate::Make(
        {.place = "fake", .source = options.chat_template, .tool_use = "", .special_tokens = {}});
  }
  model_.has_chat_template = chat_template_ != nullptr;
  model_.name = "fake";
  model_.family = "qwen3_moe";
  model_.num_parameters = 1000;
  model_.num_layers = 3;
  model_.moe_layers = {1, 2};
  model_.hidden_size = 8;
  model_.vocab_size = tokenizer_.vocab_size();
  model_.num_experts = 4;
  model_.top_k = 2;
  model_.max_context = options.max_context;
  model_.eos_token_ids = {ByteTokenizer::kEndId};
  model_.expert_weight_format = "f32";
  model_.dense_weight_format = "f32";
  model_.default_sampling.temperature = 0.7f;
  memory_plan_.num_kv_blocks = 100;
  memory_plan_.kv_block_bytes = 1024;
  memory_plan_.kv_cache_bytes = 102400;
  limits_.vocab_size = tokenizer_.vocab_size();
  limits_.max_context = options.max_context;
  loop_ = std::thread([this] { Loop(); });
}

FakeEngine::~FakeEngine() {
  {
    const MutexLock lock(mutex_);
    draining_ = stopping_ = true;
    drain_deadline_ = TimePoint::min();
    paused_ = false;
  }
  changed_.NotifyAll();
  loop_.join();
}

absl::StatusOr<Engine::Ticket> FakeEngine::Submit(Request request,
                                                  std::shared_ptr<TokenSink> sink) {
  GATEHOUSE_RETURN_IF_ERROR(ValidateRequest(limits_, request));
  const MutexLock lock(mutex_);
  GATEHOUSE_RETURN_IF_ERROR(CheckOpen());
  submitted_.push_back(request);
  running_[++last_ticket_] = {.request = std::move(request),
                              .sink = std::move(sink),
                              .submit_time = clock_.Now(),
                              .last_token = {},
                              .num_generated = 0,
                              .started = false};
  changed_.NotifyAll();
  return last_ticket_;
}

absl::Status FakeEngine::CheckQueueOpen(const Tenant& /*tenant*/) const {
  const MutexLock lock(mutex_);
  return CheckOpen();
}

absl::Status FakeEngine::CheckOpen() const {
  if (draining_) return absl::UnavailableError("the server is draining");
  if (running_.size() >= static_cast<size_t>(options_.max_queued_requests)) {
    return absl::ResourceExhaustedError("the queue is full");
  }
  return absl::OkStatus();
}

void FakeEngine::Cancel(Ticket ticket) {
  const MutexLock lock(mutex_);
  cancelled_.push_back(ticket);
  changed_.NotifyAll();
}

void FakeEngine::Drain(TimePoint deadline) {
  const MutexLock lock(mutex_);
  draining_ = true;
  drain_deadline_ = deadline;
  while (!running_.empty()) changed_.WaitFor(mutex_, std::chrono::milliseconds(1));
}

EngineStatus FakeEngine::Status() const {
  const MutexLock lock(mutex_);
  EngineStatus status;
  status.num_running = static_cast<int32_t>(running_.size());
  status.num_kv_blocks_total = memory_plan_.num_kv_blocks;
  status.last_step = last_step_;
  status.has_work = !running_.empty();
  status.draining = draining_;
  return status;
}

void FakeEngine::Pause(bool paused) {
  const MutexLock lock(mutex_);
  paused_ = paused;
  changed_.NotifyAll();
}

std::vector<Request> FakeEngine::submitted() const {
  const MutexLock lock(mutex_);
  return submitted_;
}

int FakeEngine::num_open() const {
  const MutexLock lock(mutex_);
  return static_cast<int>(running_.size());
}

bool FakeEngine::PushToken(Running& running) {
  const TimePoint now = clock_.Now();
  if (running.num_generated == 0) {
    observer_.OnFirstToken(ToSeconds(now - running.submit_time));
  } else {
    observer_.OnToken(ToSeconds(now - running.last_token));
  }
  running.last_token = now;
  DeltaEvent delta;
  delta.text = options_.text_bytes_per_token > 0 ? std::string(options_.text_bytes_per_token, 'x')
                                                 : absl::StrFormat("t%d ", running.num_generated);
  TokenOutput token{.id = 't', .bytes = "t", .logprob = {}, .top = {}, .routed_experts = {}};
  if (running.request.output.top_logprobs) token.logprob = -0.5f;
  delta.tokens.push_back(std::move(token));
  ++running.num_generated;
  return running.sink->Push(std::move(delta));
}

std::optional<absl::Status> FakeEngine::Step(Running& running) {
  TokenSink& sink = *running.sink;
  const auto num_prompt_tokens = static_cast<int32_t>(running.request.prompt_ids.size());
  if (!options_.fail_text.empty()) return absl::InternalError(options_.fail_text);
  if (!running.started) {
    running.started = true;
    StartedEvent started{.num_prompt_tokens = num_prompt_tokens,
                         .num_cached_prompt_tokens = 0,
                         .prompt_token_ids = {}};
    if (running.request.output.token_ids) started.prompt_token_ids = running.request.prompt_ids;
    if (!sink.Push(std::move(started))) return absl::CancelledError("reader gone");
    if (options_.prompt_logprobs && running.request.output.prompt_logprobs) {
      PromptEvent prompt;
      for (const int32_t id : running.request.prompt_ids) {
        prompt.tokens.push_back({.id = id,
                                 .bytes = std::string(tokenizer_.TokenBytes(id)),
                                 .logprob = -1.0f,
                                 .top = {},
                                 .routed_experts = {}});
      }
      if (!sink.Push(std::move(prompt))) return absl::CancelledError("reader gone");
    }
  }
  if (!PushToken(running)) return absl::CancelledError("reader gone");
  if (running.num_generated < running.request.stop.max_new_tokens) return std::nullopt;
  FinishedEvent finished;
  finished.num_prompt_tokens = num_prompt_tokens;
  finished.num_generated_tokens = running.num_generated;
  finished.total_seconds = ToSeconds(clock_.Now() - running.submit_time);
  sink.Push(std::move(finished));
  return absl::OkStatus();
}

void FakeEngine::Loop() {
  TimePoint next_step = clock_.Now();
  while (true) {
    std::vector<std::pair<Ticket, Running*>> batch;
    std::vector<Ticket> cancelled;
    TimePoint drain_deadline;
    {
      const MutexLock lock(mutex_);
      while (!stopping_ && cancelled_.empty() && (running_.empty() || paused_)) {
        changed_.WaitFor(mutex_, std::chrono::milliseconds(10));
        next_step = clock_.Now();
      }
      if (stopping_ && running_.empty()) return;
      cancelled.swap(cancelled_);
      drain_deadline = drain_deadline_;
      // Only this thread erases, and a map's values stay where they are.
      for (auto& [ticket, running] : running_) batch.emplace_back(ticket, &running);
    }
    for (auto& [ticket, running] : batch) {
      std::optional<absl::Status> end;
      if (std::find(cancelled.begin(), cancelled.end(), ticket) != cancelled.end()) {
        end = absl::CancelledError("cancelled");
      } else if (clock_.Now() >= running->request.deadline) {
        end = absl::DeadlineExceededError("the deadline passed");
      } else if (clock_.Now() >= drain_deadline) {
        end = absl::UnavailableError("the server is shutting down");
      } else {
        end = Step(*running);
      }
      if (!end) continue;
      observer_.OnRequestEnd({.status = *end,
                              .num_prompt_tokens = 0,
                              .num_generated_tokens = running->num_generated,
                              .queue_seconds = 0,
                              .time_to_first_token_seconds = 0,
                              .total_seconds = ToSeconds(clock_.Now() - running->submit_time)});
      const std::shared_ptr<TokenSink> sink = std::move(running->sink);
      {
        const MutexLock lock(mutex_);
        running_.erase(ticket);
      }
      sink->Close(*end);
    }
    StepStats stats;
    stats.time = clock_.Now();
    stats.num_decode_tokens = static_cast<int32_t>(batch.size());
    {
      const MutexLock lock(mutex_);
      last_step_ = stats.time;
      stats.num_running = static_cast<int32_t>(running_.size());
    }
    observer_.OnStep(stats);
    changed_.NotifyAll();
    next_step = std::max(next_step + options_.step_time, clock_.Now());
    if (options_.step_time > Duration::zero()) std::this_thread::sleep_until(next_step);
  }
}

}  // namespace gatehouse
