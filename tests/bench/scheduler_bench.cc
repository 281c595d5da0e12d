// One scheduler step, Plan and Commit: 256 sequences of about 4,096 tokens in blocks of 16, one of
// which ends each step and is replaced by a new prompt. Bound: 50 us.
#include <benchmark/benchmark.h>

#include <memory>
#include <utility>
#include <vector>

#include "engine/scheduler/scheduler.h"

namespace gatehouse {
namespace {

constexpr int32_t kPromptTokens = 4096;
constexpr int32_t kNumSequences = 256;

std::shared_ptr<const Request> RequestOf(int32_t max_new_tokens) {
  auto request = std::make_shared<Request>();
  request->prompt_ids.assign(kPromptTokens, 7);
  request->stop.max_new_tokens = max_new_tokens;
  return request;
}

void BM_SchedulerStep(benchmark::State& state) {
  Scheduler scheduler({.options = {.max_sequences = kNumSequences,
                                   .max_step_tokens = kNumSequences + kPromptTokens,
                                   .max_step_ms = 1e9},
                       .num_blocks = kNumSequences * 300,
                       .block_tokens = 16});
  SequenceId next_id = 1;
  TimePoint now{};
  const auto add = [&](std::shared_ptr<const Request> request) {
    scheduler.Add(next_id++, std::move(request), now += Duration(1));
  };
  const std::shared_ptr<const Request> next_request = RequestOf(kNumSequences);
  for (int32_t i = 1; i <= kNumSequences; ++i)
    add(RequestOf(i + kNumSequences));  // one ends each step
  std::vector<RowSample> samples;
  std::vector<uint8_t> row_failed;
  const auto step = [&] {
    const StepPlan& plan = scheduler.Plan();
    samples.resize(plan.logit_rows.size());
    row_failed.resize(plan.token_ids.size());
    int num_ended = 0;
    for (const SequenceUpdate& update : scheduler.Commit(
             {.samples = samples, .row_failed = row_failed, .duration = Duration(1)})) {
      num_ended += update.finish_reason.has_value();
    }
    return num_ended;
  };
  while (scheduler.num_waiting() > 0 || scheduler.num_running() < kNumSequences) step();
  for (int i = 0; i < 2 * kNumSequences; ++i) {
    for (int ended = step(); ended > 0; --ended) add(next_request);
  }
  int64_t num_ended_in_all = 0;
  for (auto _ : state) {
    const int num_ended = step();
    num_ended_in_all += num_ended;
    for (int i = 0; i < num_ended; ++i) add(next_request);
  }
  state.counters["running"] = scheduler.num_running();
  state.counters["ended_per_step"] =
      static_cast<double>(num_ended_in_all) / static_cast<double>(state.iterations());
}
BENCHMARK(BM_SchedulerStep)->Unit(benchmark::kMicrosecond)->MinTime(0.5);

}  // namespace
}  // namespace gatehouse

BENCHMARK_MAIN();
