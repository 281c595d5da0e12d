// What the engine itself costs: time for each generated token of N streams over a worker that
// returns at once, from the plan to the sink. One loop thread; the clients only wait.
#include <benchmark/benchmark.h>

#include <memory>
#include <utility>
#include <vector>

#include "engine/engine_loop.h"
#include "tests/testing/fake_tokenizer.h"

namespace gatehouse {
namespace {

constexpr int kTokensPerStream = 1000;

class InstantWorker final : public Worker {
 public:
  const std::vector<ExpertPlacement>& placements() const override { return placements_; }
  void Place(int, const ExpertPlacement&) override {}
  absl::StatusOr<StepResult> Run(const StepPlan& plan, std::span<const RowSampling>) override {
    StepResult result{.samples = std::vector<RowSample>(plan.logit_rows.size()),
                      .row_failed = std::vector<uint8_t>(plan.num_rows(), 0)};
    for (RowSample& sample : result.samples) sample.token_id = 7;
    return result;
  }
  const Membership& membership() const override { return membership_; }
  bool needs_regroup() const override { return false; }
  absl::StatusOr<Regrouped> Regroup() override { return Regrouped{membership_, {}}; }

 private:
  const Membership membership_ = AllRanks(1);
  const std::vector<ExpertPlacement> placements_;  // no experts
};

class DiscardingSink final : public TokenSink {
 public:
  bool Push(SinkEvent event) override {
    benchmark::DoNotOptimize(event);
    return true;
  }
  void Close(absl::Status) override {}
};

class SilentObserver final : public StepObserver {
 public:
  void OnStep(const StepStats&) override {}
  void OnToken(double) override {}
  void OnFirstToken(double) override {}
  void OnRequestEnd(const RequestStats&) override {}
};

void BM_EngineToken(benchmark::State& state) {
  const auto num_streams = static_cast<int32_t>(state.range(0));
  const SteadyClock clock;
  SilentObserver observer;
  int64_t num_tokens = 0;
  for (auto _ : state) {
    EngineParts parts{
        .scheduler = {.max_sequences = num_streams},
        .worker = std::make_unique<InstantWorker>(),
        .tokenizer = std::make_unique<FakeTokenizer>(FakeTokenizer::NumberedPieces(1000))};
    parts.memory_plan.num_kv_blocks = int64_t{num_streams} * 70;
    parts.limits = {.vocab_size = 1000, .max_context = 4096};
    EngineLoop engine(std::move(parts), clock, observer);
    for (int i = 0; i < num_streams; ++i) {
      Request request;
      request.prompt_ids.assign(16, 5);
      request.stop.max_new_tokens = kTokensPerStream;
      request.stop.strings = {"<8>"};
      if (!engine.Submit(std::move(request), std::make_shared<DiscardingSink>()).ok()) {
        state.SkipWithError("refused");
      }
    }
    engine.Drain(kNoDeadline);
    num_tokens += int64_t{num_streams} * kTokensPerStream;
  }
  state.SetItemsProcessed(num_tokens);
}
BENCHMARK(BM_EngineToken)->Arg(1)->Arg(32)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace gatehouse

BENCHMARK_MAIN();
