// An Engine without a model: every request gets the tokens 't', '0', 't', '1', ... as "t<i> " texts
// from the engine's own thread, at a pace, until max_new_tokens. It validates, queues, cancels,
// expires and drains as the contract in engine/engine.h says, so that servers can be tested alone.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "kernels/base/mutex.h"

namespace gatehouse {

// One id a byte: 0 .. 255; 256 is <|end|>, the only special token.
class ByteTokenizer final : public Tokenizer {
 public:
  static constexpr int32_t kEndId = 256;
  using OnEncode = std::function<void()>;
  explicit ByteTokenizer(OnEncode on_encode = nullptr);  // called first, by who encodes
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              const EncodeOptions& options) const override;
  absl::StatusOr<std::string> Decode(const std::vector<int32_t>& ids,
                                     bool skip_special_tokens) const override;
  std::string_view TokenBytes(int32_t id) const override;
  bool IsSpecial(int32_t id) const override { return id == kEndId; }
  std::optional<int32_t> TokenToId(std::string_view token) const override;
  int32_t vocab_size() const override { return kEndId + 1; }

 private:
  const OnEncode on_encode_;
  std::vector<std::string> token_bytes_;  // [vocab_size]
};

struct FakeEngineOptions {
  // Between two steps, each a token for every request; 0: as fast as sinks take them.
  Duration step_time = std::chrono::milliseconds(1);
  int32_t max_context = 1 << 20;
  int32_t max_queued_requests = 1 << 20;  // taken at once, running ones counted
  size_t text_bytes_per_token = 0;        // 0: "t<i> "; else that many 'x'
  bool prompt_logprobs = true;            // answers Output.prompt_logprobs with one PromptEvent
  Duration retry_after = std::chrono::milliseconds(1500);
  std::string chat_template;  // empty: the model has none
  std::string fail_text;      // not empty: requests end with INTERNAL and this text
  ByteTokenizer::OnEncode on_encode;
};

class FakeEngine final : public Engine {
 public:
  // `clock` and `observer` outlive the engine.
  FakeEngine(const FakeEngineOptions& options, const Clock& clock, StepObserver& observer);
  ~FakeEngine() override;

  absl::StatusOr<Ticket> Submit(Request request, std::shared_ptr<TokenSink> sink) override;
  absl::Status CheckQueueOpen(const Tenant& tenant) const override;
  void Cancel(Ticket ticket) override;
  void Drain(TimePoint deadline) override;

  const Tokenizer& tokenizer() const override { return tokenizer_; }
  const ChatTemplate* chat_template() const override { return chat_template_.get(); }
  const ModelDescription& model() const override { return model_; }
  const MemoryPlan& memory_plan() const override { return memory_plan_; }
  const RequestLimits& limits() const override { return limits_; }
  EngineStatus Status() const override;
  // One rank, whose experts have nowhere to move.
  std::vector<ExpertPlacement> Placements() const override { return {}; }
  absl::Status Rebalance(const RebalanceOptions&) override {
    return absl::FailedPreconditionError("the server has one rank");
  }
  RebalanceStatus Rebalancing() const override { return {}; }
  absl::Status Inject(const Fault&) override { return absl::UnimplementedError("no faults"); }
  Duration RetryAfter(const std::string& /*tenant*/) const override { return options_.retry_after; }

  // For tests.
  void Pause(bool paused);  // no steps: with work to do, the engine looks stalled
  std::vector<Request> submitted() const;
  int num_open() const;  // requests without a Close so far

 private:
  struct Running {
    Request request;
    std::shared_ptr<TokenSink> sink;
    TimePoint submit_time{};
    TimePoint last_token{};
    int32_t num_generated = 0;
    bool started = false;
  };

  absl::Status CheckOpen() const GATEHOUSE_REQUIRES(mutex_);
  void Loop();
  // Called without the lock; the status that ends the request, or nothing.
  std::optional<absl::Status> Step(Running& running);
  bool PushToken(Running& running);

  const FakeEngineOptions options_;
  const Clock& clock_;
  StepObserver& observer_;
  const ByteTokenizer tokenizer_;
  std::unique_ptr<const ChatTemplate> chat_template_;
  ModelDescription model_;
  MemoryPlan memory_plan_;
  RequestLimits limits_;

  mutable Mutex mutex_;
  CondVar changed_;
  std::map<Ticket, Running> running_ GATEHOUSE_GUARDED_BY(mutex_);  // values by the loop alone
  std::vector<Ticket> cancelled_ GATEHOUSE_GUARDED_BY(mutex_);
  std::vector<Request> submitted_ GATEHOUSE_GUARDED_BY(mutex_);
  Ticket last_ticket_ GATEHOUSE_GUARDED_BY(mutex_) = 0;
  TimePoint last_step_ GATEHOUSE_GUARDED_BY(mutex_);
  bool paused_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  bool draining_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  bool stopping_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  TimePoint drain_deadline_ GATEHOUSE_GUARDED_BY(mutex_) = kNoDeadline;
  std::thread loop_;
};

}  // namespace gatehouse
