#include "engine/completion_rate.h"

#include "gtest/gtest.h"
#include "tests/testing/engine_harness.h"
#include "tests/testing/fake_clock.h"

namespace gatehouse {
namespace {

TEST(CompletionRateTest, KnowsNothingAtFirst) {
  EXPECT_EQ(CompletionRate().RetryAfter(100), std::chrono::seconds(1));
}

TEST(CompletionRateTest, WaitsForAnEighthOfTheQueue) {
  CompletionRate rate;
  rate.Add(2, std::chrono::seconds(4));  // one in two seconds
  EXPECT_NEAR(ToSeconds(rate.RetryAfter(40)), 10, 1e-6);
  EXPECT_NEAR(ToSeconds(rate.RetryAfter(0)), 2, 1e-6);
}

TEST(CompletionRateTest, ForgetsOldWork) {
  CompletionRate rate;
  for (int i = 0; i < 100; ++i) rate.Add(1, std::chrono::milliseconds(10));
  for (int i = 0; i < 300; ++i) rate.Add(1, std::chrono::seconds(1));  // five minutes of it
  EXPECT_NEAR(ToSeconds(rate.RetryAfter(0)), 1, 0.01);
}

TEST(CompletionRateTest, StaysWithinItsLimits) {
  CompletionRate rate;
  rate.Add(1000, std::chrono::milliseconds(1));
  EXPECT_EQ(rate.RetryAfter(8), CompletionRate::kShortestRetry);
  CompletionRate slow;
  slow.Add(1, std::chrono::hours(10));
  EXPECT_EQ(slow.RetryAfter(1000), CompletionRate::kLongestRetry);
}

// Two places, a second a step: of one tenant a request ends each step, of the other every eighth.
TEST(CompletionRateTest, ARefusedTenantWaitsByItsOwnRate) {
  FakeClock clock;
  Gate gate;
  const Engine* engine = nullptr;
  Duration quick_wait{}, slow_wait{}, overall_wait{}, unknown_wait{};
  EngineHarnessOptions options = {.scheduler = {.max_sequences = 2}};
  options.worker.before_step = [&](int64_t step, const StepPlan&) {
    gate.Wait();
    clock.Advance(std::chrono::seconds(1));
    if (step != 20) return absl::OkStatus();
    quick_wait = engine->RetryAfter("quick");
    slow_wait = engine->RetryAfter("slow");
    overall_wait = engine->RetryAfter("");
    unknown_wait = engine->RetryAfter("unknown");
    return absl::OkStatus();
  };
  EngineHarness harness(options, &clock);
  engine = &harness.engine();
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  const auto start = [&](const std::string& tenant, int num_requests, int num_tokens) {
    for (int i = 0; i < num_requests; ++i) {
      Request request = HarnessRequest(1, num_tokens);
      request.tenant = std::make_shared<const Tenant>(Tenant{.name = tenant});
      sinks.push_back(harness.Start(request));
    }
  };
  start("slow", 6, 8);
  start("quick", 30, 1);
  gate.Open();
  for (const auto& sink : sinks) EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
  EXPECT_GT(slow_wait, 2 * quick_wait) << ToSeconds(slow_wait) << " " << ToSeconds(quick_wait);
  EXPECT_GT(slow_wait, overall_wait);
  EXPECT_EQ(unknown_wait, overall_wait);
}

}  // namespace
}  // namespace gatehouse
