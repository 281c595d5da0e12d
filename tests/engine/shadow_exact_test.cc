#include "engine/shadow_exact.h"

#include <atomic>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/engine_harness.h"

namespace gatehouse {
namespace {

using ::testing::Each;
using ::testing::Field;
using ::testing::IsEmpty;

std::vector<float> Logs(const std::vector<double>& probabilities) {
  std::vector<float> logs;
  for (const double p : probabilities) logs.push_back(static_cast<float>(std::log(p)));
  return logs;
}

// All numbers by numpy: (p * np.log(p / q)).sum() over the lumps.
TEST(LumpedKlTest, IsTheDivergenceOfTheTokensAndOneLump) {
  EXPECT_NEAR(LumpedKl(Logs({0.5, 0.25}), Logs({0.25, 0.5})), 0.25 * std::log(2), 1e-7);
  EXPECT_NEAR(LumpedKl(Logs({0.1, 0.3, 0.05}), Logs({0.5, 0.2, 0.1})), 0.482419, 1e-6);
  EXPECT_NEAR(LumpedKl(Logs({0.7, 0.3}), Logs({0.4, 0.6})), 0.183787, 1e-6);  // no others
  EXPECT_NEAR(LumpedKl({}, {}), 0, 0);
}

TEST(LumpedKlTest, IsZeroForEqualsAndNeverBelow) {
  const std::vector<float> logs = Logs({0.4, 0.3, 0.2, 0.05});
  EXPECT_EQ(LumpedKl(logs, logs), 0);
  // Rounding made the sum of one larger than 1.
  EXPECT_EQ(LumpedKl(Logs({0.5, 0.5}), Logs({0.5000001, 0.5000001})), 0);
}

TEST(LumpedKlTest, IsAtMostTheDivergenceOfEachTokenForItself) {
  for (int seed = 1; seed <= 200; ++seed) {
    std::vector<double> p, q;
    double p_sum = 0, q_sum = 0;
    for (int i = 0; i < 40; ++i) {
      p.push_back(std::exp(4 * std::sin(seed * 12.9898 + i * 78.233)));
      q.push_back(std::exp(4 * std::sin(seed * 39.3468 + i * 11.135)));
      p_sum += p.back();
      q_sum += q.back();
    }
    double full = 0;
    for (int i = 0; i < 40; ++i) {
      p[i] /= p_sum;
      q[i] /= q_sum;
      full += p[i] * std::log(p[i] / q[i]);
    }
    EXPECT_NEAR(LumpedKl(Logs(p), Logs(q)), full, 1e-5);
    double coarser = full + 1e-5;
    for (const size_t num_kept : {20, 8, 1, 0}) {
      p.resize(num_kept);
      q.resize(num_kept);
      const double lumped = LumpedKl(Logs(p), Logs(q));
      EXPECT_LE(lumped, coarser + 1e-5) << seed << " " << num_kept;
      coarser = lumped;
    }
  }
}

std::shared_ptr<const PinnedPolicy> Policy(bool bound_decode) {
  PinnedPolicy policy{.version = 3, .name = "token_choice"};
  policy.placement = LinearPlacement(8, 1);
  policy.bound_decode = bound_decode;
  return std::make_shared<const PinnedPolicy>(policy);
}

Request BoundedRequest(int num_prompt_tokens, int max_new_tokens, bool bound_decode = true) {
  static std::atomic<int> content = 1;
  Request request = HarnessRequest(num_prompt_tokens, max_new_tokens, ++content);
  request.sampling.temperature = 0;
  request.mode = RoutingMode::kShared;
  request.policy = Policy(bound_decode);
  return request;
}

EngineHarnessOptions Shadowed(uint64_t bounded_shift) {
  return {.scheduler = {.max_step_tokens = 40},
          .worker = {.num_blocks = 64, .num_moe_layers = 2, .bounded_shift = bounded_shift},
          .shadow_exact_fraction = 1};
}

// Probabilities of the exact choice are 2^-1, 2^-2, ...; the bounded one begins three tokens later.
double KlOfShiftByThree() {
  double kl = 0, exact_rest = 1;
  for (int i = 0; i < BoundedRun::kTopTokens; ++i) {
    const double p = std::exp2(-(i + 4));
    kl += p * std::log(std::exp2(-3));
    exact_rest -= p;
  }
  return kl + exact_rest * std::log(exact_rest / 1e-6);
}

TEST(ShadowExactTest, ComparesEveryTokenWithTheExactDistributionAfterTheSameTokens) {
  for (const bool bound_decode : {false, true}) {
    EngineHarness harness(Shadowed(3));
    const auto sink = harness.Start(BoundedRequest(100, 30, bound_decode));
    EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
    const ShadowStats stats = harness.observer().WaitForShadows(1)[0];
    EXPECT_TRUE(stats.replayed);
    EXPECT_EQ(stats.mode, RoutingMode::kShared);
    EXPECT_EQ(stats.num_tokens, 30);
    const int num_bounded = bound_decode ? 30 : 1;  // the prompt's last row, and the generated ones
    EXPECT_EQ(stats.num_agreed, 30 - num_bounded);
    EXPECT_NEAR(stats.kl_nats, num_bounded * KlOfShiftByThree(), 1e-3 * num_bounded);
  }
}

TEST(ShadowExactTest, FindsNothingWhereNothingWasBounded) {
  EngineHarness harness(Shadowed(0));
  EXPECT_EQ(harness.Start(BoundedRequest(50, 20))->WaitForClose(), absl::OkStatus());
  const ShadowStats stats = harness.observer().WaitForShadows(1)[0];
  EXPECT_EQ(stats.num_agreed, 20);
  EXPECT_EQ(stats.kl_nats, 0);
}

TEST(ShadowExactTest, ReplaysThePromptAloneForOneToken) {
  EngineHarness harness(Shadowed(3));
  EXPECT_EQ(harness.Start(BoundedRequest(1, 1))->WaitForClose(), absl::OkStatus());
  EXPECT_EQ(harness.observer().WaitForShadows(1)[0].num_tokens, 1);
}

TEST(ShadowExactTest, LooksAtTheFirstOutputAndAtSoManyOfItsTokens) {
  EngineHarness harness(Shadowed(3));
  Request request = BoundedRequest(20, BoundedRun::kMaxTokens + 30);
  request.sampling.n = 2;
  EXPECT_EQ(harness.Start(request)->WaitForClose(), absl::OkStatus());
  EXPECT_EQ(harness.observer().WaitForShadows(1)[0].num_tokens, BoundedRun::kMaxTokens);
}

// The status of the engine is from after its last request then, not from before a replay's end.
void DrainAfterOneMore(EngineHarness& harness) {
  EXPECT_EQ(harness.Start(HarnessRequest(5, 1))->WaitForClose(), absl::OkStatus());
  harness.engine().Drain(kNoDeadline);
}

// What a client, a tenant or an operator can see of requests is as without replays.
TEST(ShadowExactTest, NobodySeesAReplay) {
  std::atomic<int> num_replay_steps = 0;
  EngineHarnessOptions options = Shadowed(3);
  EngineHarness plain({.scheduler = options.scheduler, .worker = options.worker});
  std::atomic<EngineLoop*> engine = nullptr;
  options.worker.before_step = [&](int64_t, const StepPlan& plan) {
    if (!plan.is_replay) return absl::OkStatus();
    ++num_replay_steps;
    const EngineStatus status = engine.load()->Status();
    EXPECT_EQ(status.num_running + status.num_waiting, 0);
    EXPECT_FALSE(status.has_work);
    EXPECT_EQ(status.priority_counts, PriorityCounts{});
    EXPECT_THAT(status.tenant_counts, IsEmpty());
    return absl::OkStatus();
  };
  EngineHarness harness(options);
  engine = &harness.engine();
  for (const std::optional<int32_t> num_top :
       {std::optional<int32_t>(), std::optional<int32_t>(0), std::optional<int32_t>(2)}) {
    Request request = BoundedRequest(100, 6);
    request.output.top_logprobs = num_top;
    std::vector<DeltaEvent> deltas[2];
    for (EngineHarness* of : {&plain, &harness}) {
      const auto sink = of->Start(request);
      EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
      deltas[of == &harness] = sink->EventsOf<DeltaEvent>();
    }
    ASSERT_EQ(deltas[0].size(), 6u);
    ASSERT_EQ(deltas[1].size(), 6u);
    for (size_t i = 0; i < 6; ++i) {
      const TokenOutput &a = deltas[0][i].tokens[0], &b = deltas[1][i].tokens[0];
      EXPECT_EQ(a.id, b.id);
      EXPECT_EQ(a.logprob, b.logprob);
      EXPECT_EQ(a.top.size(), b.top.size());
      EXPECT_EQ(b.top.size(), static_cast<size_t>(num_top.value_or(0)));
    }
  }
  harness.observer().WaitForShadows(3);
  for (EngineHarness* of : {&plain, &harness}) DrainAfterOneMore(*of);
  EXPECT_GT(num_replay_steps, 0);
  EXPECT_EQ(harness.observer().steps().size(), plain.observer().steps().size());
  EXPECT_EQ(harness.observer().ended().size(), 4u);
  EXPECT_EQ(harness.observer().num_first_tokens(), 4);
  EXPECT_EQ(harness.engine().Status().num_kv_blocks_used, 0);
}

TEST(ShadowExactTest, ExactAndUnfinishedRequestsAreNotReplayed) {
  EngineHarness harness(Shadowed(3));
  EXPECT_EQ(harness.Start(HarnessRequest(50, 5))->WaitForClose(), absl::OkStatus());
  const auto cancelled = std::make_shared<RecordingSink>(/*num_accepted_events=*/3);
  EXPECT_TRUE(harness.engine().Submit(BoundedRequest(50, 30), cancelled).ok());
  EXPECT_EQ(cancelled->WaitForClose().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(harness.Start(BoundedRequest(50, 5))->WaitForClose(), absl::OkStatus());
  EXPECT_EQ(harness.observer().WaitForShadows(1)[0].num_tokens, 5);
  harness.engine().Drain(kNoDeadline);
  EXPECT_EQ(harness.observer().WaitForShadows(1).size(), 1u);
}

// An engine with nothing but the scheduler: who is watched.
class SampleTest : public ::testing::Test {
 protected:
  std::vector<bool> Sample(double fraction, const HashKey& secret, int num_requests) {
    ShadowExact shadow({.fraction = fraction, .secret = secret, .max_step_tokens = 8}, scheduler_,
                       observer_);
    std::vector<bool> sample;
    Request request = BoundedRequest(5, 1);
    for (int i = 0; i < num_requests; ++i) {
      request.id = absl::StrFormat("request-%d", i);
      sample.push_back(shadow.Watch(1, std::make_shared<const Request>(request)) != nullptr);
      shadow.Ended(1, false);
    }
    return sample;
  }

  CountingObserver observer_;
  Scheduler scheduler_{SchedulerSetup{.num_blocks = 4}};
};

TEST_F(SampleTest, IsTheWantedShareByAHashOfTheId) {
  const auto count = [](const std::vector<bool>& sample) {
    return std::count(sample.begin(), sample.end(), true);
  };
  EXPECT_EQ(count(Sample(0, {1, 2}, 1000)), 0);
  EXPECT_EQ(count(Sample(1, {1, 2}, 1000)), 1000);
  const std::vector<bool> sample = Sample(0.25, {1, 2}, 4000);
  EXPECT_NEAR(static_cast<double>(count(sample)), 1000, 5 * std::sqrt(4000 * 0.25 * 0.75));
  EXPECT_EQ(Sample(0.25, {1, 2}, 4000), sample);
  EXPECT_NE(Sample(0.25, {1, 3}, 4000), sample) << "nobody foresees it without the secret";
}

TEST(ShadowExactTest, WaitsUntilNobodyWantsTheEngine) {
  std::atomic<const CountingObserver*> observer = nullptr;
  EngineHarnessOptions options = Shadowed(3);
  Gate both_are_there;
  options.worker.before_step = [&](int64_t n, const StepPlan& plan) {
    if (n == 0) both_are_there.Wait();
    if (plan.is_replay) {
      EXPECT_EQ(plan.num_decode_tokens, 0);
      EXPECT_EQ(plan.routed_tokens.size(), 0u);
      EXPECT_EQ(observer.load()->ended().size(), 2u);
    }
    return absl::OkStatus();
  };
  EngineHarness harness(options);
  observer = &harness.observer();
  const auto first = harness.Start(BoundedRequest(30, 3));
  const auto second = harness.Start(HarnessRequest(30, 100));
  both_are_there.Open();
  EXPECT_EQ(first->WaitForClose(), absl::OkStatus());
  EXPECT_EQ(second->WaitForClose(), absl::OkStatus());
  EXPECT_EQ(harness.observer().WaitForShadows(1)[0].num_tokens, 3);
}

// A request comes during every step of a replay but the last, up to a number of times.
std::vector<ShadowStats> ReplayInterrupted(int num_times) {
  std::atomic<EngineLoop*> engine = nullptr;
  int num_left = num_times;
  bool was_interrupted = false;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  EngineHarnessOptions options = Shadowed(3);
  options.scheduler.max_step_tokens = 70;
  options.worker.before_step = [&](int64_t, const StepPlan& plan) {
    EXPECT_FALSE(was_interrupted && plan.is_replay);
    was_interrupted = false;
    const bool is_last = plan.positions.back() == 98;
    if (!plan.is_replay || is_last || num_left == 0) return absl::OkStatus();
    --num_left;
    was_interrupted = true;
    auto sink = std::make_shared<RecordingSink>();
    EXPECT_TRUE(engine.load()->Submit(HarnessRequest(600, 2), sink).ok());
    sinks.push_back(sink);
    return absl::OkStatus();
  };
  EngineHarness harness(options);
  engine = &harness.engine();
  EXPECT_EQ(harness.Start(BoundedRequest(40, 60))->WaitForClose(), absl::OkStatus());
  const std::vector<ShadowStats> shadows = harness.observer().WaitForShadows(1);
  DrainAfterOneMore(harness);
  EXPECT_EQ(num_left, 0);
  for (const auto& sink : sinks) EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
  EXPECT_EQ(harness.engine().Status().num_kv_blocks_used, 0);
  return shadows;
}

TEST(ShadowExactTest, GivesWayToARequestAndComparesEachTokenOnce) {
  const std::vector<ShadowStats> shadows = ReplayInterrupted(ShadowExact::kMaxInterruptions - 1);
  ASSERT_EQ(shadows.size(), 1u);
  EXPECT_TRUE(shadows[0].replayed);
  EXPECT_EQ(shadows[0].num_tokens, 60);
  EXPECT_NEAR(shadows[0].kl_nats, 60 * KlOfShiftByThree(), 0.06);
}

TEST(ShadowExactTest, IsSkippedWhenTheGapsAreTooShortForIt) {
  const std::vector<ShadowStats> shadows = ReplayInterrupted(ShadowExact::kMaxInterruptions);
  ASSERT_EQ(shadows.size(), 1u);
  EXPECT_FALSE(shadows[0].replayed);
  EXPECT_EQ(shadows[0].num_tokens, 0);
}

TEST(ShadowExactTest, KeepsABoundedNumberAndCountsTheOthers) {
  constexpr size_t kNumRequests = ShadowExact::kMaxRuns + 7;
  Gate gate;
  EngineHarnessOptions options = Shadowed(3);
  options.worker.num_blocks = 256;
  options.worker.before_step = StepsBehind(gate, 0);
  EngineHarness harness(options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (size_t i = 0; i < kNumRequests; ++i) sinks.push_back(harness.Start(BoundedRequest(5, 2)));
  gate.Open();
  for (const auto& sink : sinks) EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
  int num_skipped = 0;
  for (const ShadowStats& stats : harness.observer().WaitForShadows(kNumRequests)) {
    num_skipped += stats.replayed ? 0 : 1;
  }
  EXPECT_EQ(num_skipped, 7);
}

TEST(ShadowExactTest, ADrainEndsReplaysAtOnce) {
  Gate gate;
  std::atomic<bool> is_replaying = false;
  std::atomic<int> num_steps_after = 0;
  EngineHarnessOptions options = Shadowed(3);
  options.worker.before_step = [&](int64_t, const StepPlan& plan) {
    if (plan.is_replay && is_replaying.exchange(true)) ++num_steps_after;
    if (plan.is_replay) gate.Wait();
    return absl::OkStatus();
  };
  EngineHarness harness(options);
  EXPECT_EQ(harness.Start(BoundedRequest(100, 3))->WaitForClose(), absl::OkStatus());
  while (!is_replaying) std::this_thread::yield();
  harness.engine().Drain(kNoDeadline);  // does not wait for the step that stands at the gate
  gate.Open();
  EXPECT_FALSE(harness.observer().WaitForShadows(1)[0].replayed);
  EXPECT_EQ(num_steps_after, 0);
  harness.DestroyEngine();
}

TEST(ShadowExactTest, AFailedReplayIsSkippedAndTouchesNobody) {
  const auto run = [](FakeWorkerOptions worker) {
    EngineHarnessOptions options = Shadowed(3);
    options.worker = std::move(worker);
    EngineHarness harness(options);
    EXPECT_EQ(harness.Start(BoundedRequest(50, 4))->WaitForClose(), absl::OkStatus());
    EXPECT_FALSE(harness.observer().WaitForShadows(1)[0].replayed);
    EXPECT_EQ(harness.Start(HarnessRequest(50, 4))->WaitForClose(), absl::OkStatus());
  };
  run({.num_blocks = 64, .before_step = [](int64_t, const StepPlan& plan) {
         return plan.is_replay ? absl::InternalError("the machine") : absl::OkStatus();
       }});
  std::atomic<bool> is_replay = false;
  run({.num_blocks = 64,
       .before_step =
           [&](int64_t, const StepPlan& plan) {
             is_replay = plan.is_replay;
             return absl::OkStatus();
           },
       .row_fails = [&](int32_t, int32_t position) { return is_replay && position == 49; }});
}

// What was in the blocks that a replay took is found no more: it would be another's.
TEST(ShadowExactTest, OverwritesWhatTheCacheHeldAndSaysSo) {
  EngineHarnessOptions options = Shadowed(3);
  options.worker.num_blocks = 10;
  EngineHarness harness(options);
  const Request exact = HarnessRequest(64, 2);
  EXPECT_EQ(harness.Start(exact)->WaitForClose(), absl::OkStatus());
  for (size_t i = 1; i <= 3; ++i) {
    EXPECT_EQ(harness.Start(BoundedRequest(90, 4))->WaitForClose(), absl::OkStatus());
    harness.observer().WaitForShadows(i);
    const auto again = harness.Start(exact);
    EXPECT_EQ(again->WaitForClose(), absl::OkStatus());
    EXPECT_EQ(again->token_ids(), ExpectedTokens(exact));
  }
}

// Nobody finds what a replay computed, though it is exact.
TEST(ShadowExactTest, LeavesNothingInThePrefixCache) {
  EngineHarness harness(Shadowed(3));
  Request request = BoundedRequest(64, 40);
  request.cache_salt = "bounded";
  const auto sink = harness.Start(request);
  EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
  harness.observer().WaitForShadows(1);
  Request after = HarnessRequest(1, 2);
  after.prompt_ids = request.prompt_ids;
  const std::vector<int32_t> generated = sink->token_ids();
  after.prompt_ids.insert(after.prompt_ids.end(), generated.begin(), generated.end());
  const auto exact = harness.Start(after);
  EXPECT_EQ(exact->WaitForClose(), absl::OkStatus());
  EXPECT_EQ(exact->EventsOf<StartedEvent>().at(0).num_cached_prompt_tokens, 0);
}

}  // namespace
}  // namespace gatehouse
