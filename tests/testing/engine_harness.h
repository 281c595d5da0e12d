// An EngineLoop over a FakeWorker and a FakeTokenizer, with an observer that counts, and the oracle
// of what a request must yield.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine_loop.h"
#include "engine/sampling/sampling_state.h"
#include "kernels/base/mutex.h"
#include "tests/testing/fake_tokenizer.h"
#include "tests/testing/fake_worker.h"
#include "tests/testing/recording_sink.h"

namespace gatehouse {

// Thread-safe.
class CountingObserver final : public StepObserver {
 public:
  void OnStep(const StepStats& stats) override {
    MutexLock lock(mutex_);
    steps_.push_back(stats);
  }
  void OnToken(double) override {
    MutexLock lock(mutex_);
    ++num_later_tokens_;
  }
  void OnFirstToken(double) override {
    MutexLock lock(mutex_);
    ++num_first_tokens_;
  }
  void OnRequestEnd(const RequestStats& stats) override {
    MutexLock lock(mutex_);
    ended_.push_back(stats);
  }
  void OnShadow(const ShadowStats& stats) override {
    MutexLock lock(mutex_);
    shadows_.push_back(stats);
    changed_.NotifyAll();
  }

  std::vector<StepStats> steps() const {
    MutexLock lock(mutex_);
    return steps_;
  }
  std::vector<RequestStats> ended() const {
    MutexLock lock(mutex_);
    return ended_;
  }
  // Waits until there are so many.
  std::vector<ShadowStats> WaitForShadows(size_t count) {
    MutexLock lock(mutex_);
    while (shadows_.size() < count) changed_.Wait(mutex_);
    return shadows_;
  }
  int64_t num_first_tokens() const {
    MutexLock lock(mutex_);
    return num_first_tokens_;
  }
  int64_t num_later_tokens() const {
    MutexLock lock(mutex_);
    return num_later_tokens_;
  }

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  std::vector<ShadowStats> shadows_ GATEHOUSE_GUARDED_BY(mutex_);
  std::vector<StepStats> steps_ GATEHOUSE_GUARDED_BY(mutex_);
  std::vector<RequestStats> ended_ GATEHOUSE_GUARDED_BY(mutex_);
  int64_t num_first_tokens_ GATEHOUSE_GUARDED_BY(mutex_) = 0;
  int64_t num_later_tokens_ GATEHOUSE_GUARDED_BY(mutex_) = 0;
};

struct EngineHarnessOptions {
  SchedulerOptions scheduler;
  FakeWorkerOptions worker = {.num_blocks = 64, .num_moe_layers = 2};
  std::vector<int32_t> eos_token_ids;
  std::vector<std::string> pieces = FakeTokenizer::NumberedPieces(1000);  // the vocabulary
  std::set<int32_t> special_ids;
  int32_t max_context = 4096;
  double shadow_exact_fraction = 0;
};

class EngineHarness {
 public:
  explicit EngineHarness(const EngineHarnessOptions& options, const Clock* clock = nullptr)
      : engine_(std::make_unique<EngineLoop>(
            PartsOf(options), clock == nullptr ? steady_clock_ : *clock, observer_)) {}

  EngineLoop& engine() { return *engine_; }
  CountingObserver& observer() { return observer_; }
  void DestroyEngine() { engine_.reset(); }

  // Submits and expects to be accepted.
  std::shared_ptr<RecordingSink> Start(Request request, Engine::Ticket* ticket = nullptr) {
    auto sink = std::make_shared<RecordingSink>();
    const absl::StatusOr<Engine::Ticket> accepted = engine_->Submit(std::move(request), sink);
    EXPECT_TRUE(accepted.ok()) << accepted.status();
    if (ticket != nullptr && accepted.ok()) *ticket = *accepted;
    return sink;
  }

  static EngineParts PartsOf(const EngineHarnessOptions& options) {
    const auto vocab_size = static_cast<int32_t>(options.pieces.size());
    FakeWorkerOptions worker = options.worker;
    worker.vocab_size = vocab_size;
    EngineParts parts{
        .scheduler = options.scheduler,
        .block_tokens = worker.block_tokens,
        .num_ranks = worker.num_ranks,
        .worker = std::make_unique<FakeWorker>(worker),
        .tokenizer = std::make_unique<FakeTokenizer>(options.pieces, options.special_ids)};
    parts.model.vocab_size = vocab_size;
    parts.model.eos_token_ids = options.eos_token_ids;
    // MoE layers 1, 3, 5, ...: between dense ones, so that numbers cannot be mistaken.
    for (int i = 0; i < worker.num_moe_layers; ++i) parts.model.moe_layers.push_back(2 * i + 1);
    parts.memory_plan.num_kv_blocks = worker.num_blocks;
    parts.shadow_exact_fraction = options.shadow_exact_fraction;
    parts.limits = {.vocab_size = vocab_size, .max_context = options.max_context};
    return parts;
  }

 private:
  const SteadyClock steady_clock_;
  CountingObserver observer_;
  std::unique_ptr<EngineLoop> engine_;
};

inline Request HarnessRequest(int num_prompt_tokens, int max_new_tokens, int content = 1,
                              int32_t vocab_size = 1000) {
  Request request;
  for (int i = 0; i < num_prompt_tokens; ++i) {
    request.prompt_ids.push_back((content * 131 + i * 7) % vocab_size);
  }
  request.stop.max_new_tokens = max_new_tokens;
  request.sampling.seed = 42;
  return request;
}

// The tokens that `request`, run to its full length, must yield: no engine, no cache, no batch.
inline std::vector<int32_t> ExpectedTokens(const Request& request, int32_t vocab_size = 1000,
                                           std::vector<int32_t> eos_token_ids = {}) {
  SamplingState sampling(std::make_shared<const Request>(request), *request.sampling.seed,
                         eos_token_ids);
  std::vector<int32_t> tokens = request.prompt_ids;
  for (int i = 0; i < request.stop.max_new_tokens; ++i) {
    tokens.push_back(FakeWorker::Choose(tokens, vocab_size, sampling.Next()).token_id);
    sampling.Append(tokens.back());
  }
  return {tokens.begin() + static_cast<int64_t>(request.prompt_ids.size()), tokens.end()};
}

// A door that before_step can wait at.
class Gate {
 public:
  void Open() {
    MutexLock lock(mutex_);
    open_ = true;
    changed_.NotifyAll();
  }
  void Wait() {
    MutexLock lock(mutex_);
    while (!open_) changed_.Wait(mutex_);
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool open_ GATEHOUSE_GUARDED_BY(mutex_) = false;
};

// A step that does not begin before `gate` opens: what is submitted meanwhile is certain to meet.
inline std::function<absl::Status(int64_t, const StepPlan&)> StepsBehind(Gate& gate,
                                                                         int64_t first_step) {
  return [&gate, first_step](int64_t n, const StepPlan&) {
    if (n >= first_step) gate.Wait();
    return absl::OkStatus();
  };
}

}  // namespace gatehouse
