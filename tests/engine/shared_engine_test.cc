// What requests of an engine share: its cache, its blocks and its queue.
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/testing/engine_harness.h"

namespace gatehouse {
namespace {

TEST(SharedEngineTest, TellsHowMuchOfThePromptTheCacheHad) {
  EngineHarness harness({.worker = {.num_blocks = 64, .block_tokens = 4}});
  const Request request = HarnessRequest(10, 4);
  const auto cold = harness.Start(request);
  EXPECT_EQ(cold->WaitForClose(), absl::OkStatus());
  const auto warm = harness.Start(request);
  EXPECT_EQ(warm->WaitForClose(), absl::OkStatus());
  EXPECT_EQ(cold->EventsOf<StartedEvent>().at(0).num_cached_prompt_tokens, 0);
  EXPECT_EQ(warm->EventsOf<StartedEvent>().at(0).num_cached_prompt_tokens, 8);
  EXPECT_EQ(warm->token_ids(), cold->token_ids());
  int64_t num_cached = 0, num_computed = 0;
  for (const StepStats& step : harness.observer().steps()) {
    num_cached += step.num_cached_prompt_tokens;
    num_computed += step.num_prefill_tokens;
  }
  EXPECT_EQ(num_cached, 8);
  EXPECT_EQ(num_computed, 10 + 2);
}

// What tells of every row of the prompt needs every row: a warm cache must not change a result.
TEST(SharedEngineTest, ComputesAWarmPromptAgainWhenItsRowsAreAskedFor) {
  EngineHarness harness({.worker = {.num_blocks = 64, .block_tokens = 4, .num_moe_layers = 2}});
  const Request plain = HarnessRequest(10, 4);
  EXPECT_EQ(harness.Start(plain)->WaitForClose(), absl::OkStatus());
  Request logprobs = plain, routes = plain, report = plain;
  logprobs.output.prompt_logprobs = 0;
  routes.output.routed_experts = true;
  report.output.moe_report = true;
  for (const Request& request : {logprobs, routes, report}) {
    const auto sink = harness.Start(request);
    EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
    EXPECT_EQ(sink->EventsOf<StartedEvent>().at(0).num_cached_prompt_tokens, 0);
    size_t num_prompt_tokens = 0;
    for (const auto& prompt : sink->EventsOf<PromptEvent>()) {
      num_prompt_tokens += prompt.tokens.size();
    }
    EXPECT_EQ(num_prompt_tokens, request.output.moe_report ? 0u : 10u);
    const auto moe_report = sink->EventsOf<FinishedEvent>().at(0).moe_report;
    if (moe_report.has_value()) {
      EXPECT_EQ(moe_report->routes.assignments, 13 * 2 * 2);
    }
  }
}

TEST(SharedEngineTest, CountsByPriorityAndTenant) {
  Gate gate;
  EngineHarnessOptions options = {.scheduler = {.max_sequences = 1}};
  options.worker.before_step = StepsBehind(gate, 0);
  EngineHarness harness(options);
  const auto start = [&](const std::string& tenant, Priority priority) {
    Request request = HarnessRequest(5, 2);
    request.tenant = std::make_shared<const Tenant>(Tenant{.name = tenant});
    request.priority = priority;
    return harness.Start(request);
  };
  std::vector<std::shared_ptr<RecordingSink>> sinks = {start("web", Priority::kHigh)};
  while (harness.engine().Status().num_running == 0) std::this_thread::yield();
  for (int i = 0; i < 2; ++i) sinks.push_back(start("lab", Priority::kLow));
  const EngineStatus status = harness.engine().Status();
  const QueueCounts running{.num_running = 1}, waiting{.num_waiting = 2, .num_waiting_tokens = 10};
  EXPECT_EQ(status.priority_counts, (PriorityCounts{waiting, QueueCounts{}, running}));
  const std::map<std::string, QueueCounts> tenants(status.tenant_counts.begin(),
                                                   status.tenant_counts.end());
  EXPECT_EQ(tenants, (std::map<std::string, QueueCounts>{{"web", running}, {"lab", waiting}}));
  gate.Open();
  for (const auto& sink : sinks) EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
  harness.engine().Drain(kNoDeadline);
  EXPECT_EQ(harness.engine().Status().priority_counts, PriorityCounts{});
  EXPECT_TRUE(harness.engine().Status().tenant_counts.empty());
  EXPECT_EQ(harness.observer().steps().back().priority_counts, PriorityCounts{});
}

// Cancelled while the k-th step runs, for every k: that is its last step, and all blocks come back.
TEST(SharedEngineTest, ACancelAtAnyStepEndsTheRequestWithThatStep) {
  for (const int32_t num_outputs : {1, 3}) {
    int64_t num_steps = 1;
    for (int64_t cancel_at = 0; cancel_at < num_steps; ++cancel_at) {
      std::atomic<EngineLoop*> engine = nullptr;
      std::atomic<int64_t> last_step = 0;
      EngineHarness harness(
          {.scheduler = {.max_step_tokens = 40},
           .worker = {.num_blocks = 64, .before_step = [&](int64_t n, const StepPlan&) {
                        while (engine.load() == nullptr) std::this_thread::yield();
                        last_step = n;
                        if (n == cancel_at) engine.load()->Cancel(1);
                        return absl::OkStatus();
                      }}});
      Request request = HarnessRequest(100, 6);
      request.sampling.n = num_outputs;
      const auto sink = harness.Start(request);
      engine = &harness.engine();
      const absl::Status status = sink->WaitForClose();
      harness.engine().Drain(kNoDeadline);
      EXPECT_EQ(harness.engine().Status().num_kv_blocks_used, 0);
      EXPECT_EQ(last_step, cancel_at);
      if (cancel_at == num_steps - 1 && !status.ok()) ++num_steps;  // not the last of all yet
    }
    EXPECT_GE(num_steps, 8) << "three chunks and six tokens";
  }
}

TEST(SharedEngineTest, AFullQueueOfOneTenantIsOpenToAnother) {
  Gate gate;
  EngineHarness harness({.scheduler = {.max_sequences = 2, .max_queued_requests = 4},
                         .worker = {.num_blocks = 64, .before_step = StepsBehind(gate, 0)}});
  const auto submit = [&](const char* tenant, int64_t max_queued_tokens) {
    Request request = HarnessRequest(5, 3);
    request.tenant = std::make_shared<const Tenant>(
        Tenant{.name = tenant, .max_queued_tokens = max_queued_tokens});
    return harness.engine().Submit(request, std::make_shared<RecordingSink>()).status();
  };
  const auto accepted_of = [&](const char* tenant, int64_t max_queued_tokens) {
    int num_accepted = 0;
    while (num_accepted < 100 && submit(tenant, max_queued_tokens).ok()) ++num_accepted;
    return num_accepted;
  };
  // The flood takes the two places and the queue of four, the other half the queue.
  EXPECT_GE(accepted_of("flood", 0), 4);
  EXPECT_EQ(submit("flood", 0).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GE(accepted_of("other", 0), 2);
  EXPECT_EQ(submit("other", 0).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(accepted_of("limited", 7), 1);
  gate.Open();
  harness.engine().Drain(kNoDeadline);
}

TEST(SharedEngineTest, CountsEveryRowOnceInTheMoeReport) {
  // Five blocks of 4 tokens for two requests that grow to 16: the younger is preempted.
  Gate gate;
  EngineHarness harness({.worker = {.num_blocks = 5,
                                    .block_tokens = 4,
                                    .num_moe_layers = 3,
                                    .before_step = StepsBehind(gate, 0)}});
  Request request = HarnessRequest(4, 12, 1);
  request.output.moe_report = true;
  const auto first = harness.Start(HarnessRequest(4, 12, 2)), second = harness.Start(request);
  gate.Open();
  EXPECT_EQ(first->WaitForClose(), absl::OkStatus());
  EXPECT_EQ(second->WaitForClose(), absl::OkStatus());
  const FinishedEvent finished = second->EventsOf<FinishedEvent>().at(0);
  EXPECT_GT(finished.num_preemptions, 0) << "the case must preempt to mean something";
  EXPECT_EQ(finished.moe_report->routes.assignments, 15 * 3 * 2);  // rows, layers, top_k
  EXPECT_EQ(finished.moe_report->routes.kept, 15 * 3 * 2);
  EXPECT_EQ(finished.moe_report->routes.dropped, 0);
  EXPECT_EQ(finished.moe_report->routes.gate_mass_kept, finished.moe_report->routes.gate_mass);
  EXPECT_EQ(second->token_ids(), ExpectedTokens(request));
}

// Prompts of 40 in steps of 20 rows, a block a token: when the younger has computed 38 of them the
// older takes its blocks; computed again, the chunks cut it elsewhere.
TEST(SharedEngineTest, CountsEveryRowOnceWhenAPromptIsPreemptedBetweenItsChunks) {
  Gate gate;
  EngineHarness harness({.scheduler = {.max_sequences = 4, .max_step_tokens = 20},
                         .worker = {.num_blocks = 81,
                                    .block_tokens = 1,
                                    .num_moe_layers = 3,
                                    .before_step = StepsBehind(gate, 0)}});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 2; ++i) {
    Request request = HarnessRequest(40, 20, i);
    request.output.moe_report = true;
    sinks.push_back(harness.Start(request));
  }
  gate.Open();
  int32_t num_preemptions = 0;
  for (const auto& sink : sinks) {
    EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
    const FinishedEvent finished = sink->EventsOf<FinishedEvent>().at(0);
    EXPECT_EQ(finished.moe_report->routes.assignments, 59 * 3 * 2);
    EXPECT_EQ(finished.moe_report->routes.kept, 59 * 3 * 2);
    num_preemptions += finished.num_preemptions;
  }
  EXPECT_GT(num_preemptions, 0) << "the case must preempt to mean something";
  harness.engine().Drain(kNoDeadline);
  int64_t num_new = 0, num_prefill = 0;
  for (const StepStats& step : harness.observer().steps()) {
    num_new += step.num_new_prompt_tokens;
    num_prefill += step.num_prefill_tokens;
  }
  EXPECT_EQ(num_new, 2 * 40);
  EXPECT_GT(num_prefill, 2 * 40) << "some were computed twice";
}

}  // namespace
}  // namespace gatehouse
