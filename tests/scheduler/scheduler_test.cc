#include "engine/scheduler/scheduler.h"

#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/scheduler/scheduler_harness.h"

namespace gatehouse {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(SchedulerTest, RunsOneRequestToItsLength) {
  SchedulerHarness harness(SetupOf({}, 16));
  const Request request = RequestOf(20, 5);
  const SequenceId id = harness.Add(request);
  harness.RunToTheEnd();
  EXPECT_EQ(harness.of(id).tokens, ExpectedTokens(request));
  EXPECT_EQ(harness.of(id).finish_reason, FinishReason::kLength);
  EXPECT_EQ(harness.of(id).new_positions.size(), 24u);  // the last token was never an input
  EXPECT_EQ(harness.scheduler().block_pool().num_used(), 0);
  EXPECT_TRUE(harness.scheduler().empty());
}

TEST(SchedulerTest, PlansDecodesFirstThenPromptsInOrderOfArrival) {
  SchedulerHarness harness(SetupOf({.max_step_tokens = 40}, 64));
  const SequenceId first = harness.Add(RequestOf(10, 9), 0);
  harness.Step();
  const SequenceId second = harness.Add(RequestOf(30, 9), 2);
  const SequenceId third = harness.Add(RequestOf(30, 9), 1);
  harness.Step();
  EXPECT_THAT(harness.last_plan().span_sequences, ElementsAre(first, third, second));
  EXPECT_EQ(harness.last_plan().num_decode_tokens, 1);
  EXPECT_EQ(harness.last_plan().spans[1].num_rows, 30);
  EXPECT_EQ(harness.last_plan().spans[2].num_rows, 9);  // what is left of 40
  EXPECT_EQ(harness.last_plan().logit_rows.size(), 2u);
  EXPECT_EQ(harness.last_plan().logit_rows[1].row, 30);
  EXPECT_EQ(harness.last_plan().logit_rows[1].position, 29);
}

TEST(SchedulerTest, BoundsPromptTokensByTheMeasuredTimeOfSteps) {
  SchedulerHarness harness(SetupOf({.max_step_tokens = 512, .max_step_ms = 100}, 64));
  harness.Add(RequestOf(500, 1));
  harness.Step(std::chrono::milliseconds(128));
  EXPECT_EQ(harness.last_plan().num_rows(), PrefillBudget::kFirstTokens);
  harness.Step();
  EXPECT_EQ(harness.last_plan().num_rows(), 50);  // 100 ms at 2 ms a token
}

TEST(SchedulerTest, KeepsRoomForPromptsBesideAFullSetOfDecodes) {
  SchedulerHarness harness(SetupOf({.max_sequences = 64, .max_step_tokens = 20}, 64));
  for (int i = 0; i < 10; ++i) harness.Add(RequestOf(1, 50, i));
  harness.Step();
  harness.Step();
  EXPECT_EQ(harness.scheduler().num_running(), 4);
  EXPECT_EQ(harness.scheduler().num_waiting(), 6);
  EXPECT_EQ(harness.scheduler().num_waiting_tokens(), 6);
}

TEST(SchedulerTest, HigherPriorityStartsFirst) {
  SchedulerHarness harness(SetupOf({.max_sequences = 1}, 64));
  Request low = RequestOf(4, 2), high = RequestOf(4, 2);
  low.priority = Priority::kLow;
  high.priority = Priority::kHigh;
  const SequenceId low_id = harness.Add(low, 0);
  const SequenceId normal_id = harness.Add(RequestOf(4, 2), 1);
  const SequenceId high_id = harness.Add(high, 2);
  std::vector<SequenceId> order;
  while (harness.Step()) {
    const SequenceId now = harness.last_plan().span_sequences[0];
    if (order.empty() || order.back() != now) order.push_back(now);
  }
  EXPECT_THAT(order, ElementsAre(high_id, normal_id, low_id));
}

TEST(SchedulerTest, LowPriorityDoesNotWaitForEver) {
  SchedulerHarness harness(SetupOf({.max_sequences = 1}, 64));
  Request low = RequestOf(4, 2), high = RequestOf(4, 2);
  low.priority = Priority::kLow;
  high.priority = Priority::kHigh;
  const double delay = ToSeconds(Scheduler::kPriorityDelay);
  const SequenceId low_id = harness.Add(low, 0);
  harness.Add(high, 2 * delay + 1);
  harness.Step();
  EXPECT_THAT(harness.last_plan().span_sequences, ElementsAre(low_id));
}

TEST(SchedulerTest, PreemptsTheYoungestAndLosesNothing) {
  // Eight blocks: each sequence grows from one block to five.
  SchedulerHarness harness(SetupOf({}, 8));
  const Request old_request = RequestOf(10, 70, 1), young_request = RequestOf(10, 70, 2);
  const SequenceId old_id = harness.Add(old_request, 0);
  const SequenceId young_id = harness.Add(young_request, 1);
  harness.RunToTheEnd();
  EXPECT_EQ(harness.of(old_id).tokens, ExpectedTokens(old_request));
  EXPECT_EQ(harness.of(young_id).tokens, ExpectedTokens(young_request));
  EXPECT_EQ(harness.of(old_id).num_preemptions, 0);
  EXPECT_EQ(harness.of(young_id).num_preemptions, 1);
  EXPECT_EQ(harness.of(young_id).new_positions.size(), 79u);
}

TEST(SchedulerTest, PreemptsTheLowerPriorityThoughItCameFirst) {
  SchedulerHarness harness(SetupOf({}, 8));
  Request low = RequestOf(10, 70, 1);
  low.priority = Priority::kLow;
  const SequenceId low_id = harness.Add(low, 0);
  const SequenceId normal_id = harness.Add(RequestOf(10, 70, 2), 1);
  harness.RunToTheEnd();
  EXPECT_EQ(harness.of(low_id).num_preemptions, 1);
  EXPECT_EQ(harness.of(normal_id).num_preemptions, 0);
}

// Blocks of one token: the low priority takes one with every step, until the other's last chunk
// finds too few. In that step the low one is in the plan already and keeps what it has.
TEST(SchedulerTest, NeverTakesTheBlocksOfWhatIsInThePlan) {
  SchedulerSetup setup = SetupOf({.max_step_tokens = 18}, 104);
  setup.block_tokens = 1;
  SchedulerHarness harness(setup);
  Request low = RequestOf(1, 50, 1);
  low.priority = Priority::kLow;
  const Request normal = RequestOf(100, 3, 2);
  const SequenceId low_id = harness.Add(low, 0);
  harness.Step();
  const SequenceId normal_id = harness.Add(normal, 1);
  bool was_short = false;
  while (harness.Step()) {
    const StepPlan& plan = harness.last_plan();
    was_short |= plan.num_decode_tokens == 1 && plan.num_prefill_tokens == 12;
  }
  EXPECT_TRUE(was_short) << "the case must run out of blocks beside a decode to mean something";
  EXPECT_EQ(harness.of(low_id).tokens, ExpectedTokens(low));
  EXPECT_EQ(harness.of(normal_id).tokens, ExpectedTokens(normal));
  EXPECT_EQ(harness.of(low_id).num_preemptions, 1);
}

TEST(SchedulerTest, StartsNoSequenceThatWouldSoonBePreempted) {
  for (const int32_t num_blocks : {4, 5}) {
    SchedulerHarness harness(SetupOf({}, num_blocks));
    harness.Add(RequestOf(48, 2), 0);  // three blocks of 16, one more to come
    harness.Add(RequestOf(16, 2), 1);  // one block
    harness.Step();
    EXPECT_EQ(harness.scheduler().num_running(), num_blocks - 3) << num_blocks << " blocks";
  }
}

TEST(SchedulerTest, ReportsEveryPromptTokenOnceUnderChunksAndPreemption) {
  SchedulerHarness harness(SetupOf({.max_step_tokens = 19}, 9));
  std::vector<Request> requests;
  std::vector<SequenceId> ids;
  for (int i = 0; i < 4; ++i) {
    requests.push_back(RequestOf(50, 40, i));
    requests.back().output.prompt_logprobs = 0;
    ids.push_back(harness.Add(requests.back(), i));
  }
  harness.RunToTheEnd();
  int32_t num_preemptions = 0;
  for (int i = 0; i < 4; ++i) {
    const std::vector<int32_t>& prompt = requests[i].prompt_ids;
    EXPECT_EQ(harness.of(ids[i]).prompt_targets,
              std::vector<int32_t>(prompt.begin() + 1, prompt.end()));
    EXPECT_EQ(harness.of(ids[i]).tokens, ExpectedTokens(requests[i]));
    num_preemptions += harness.of(ids[i]).num_preemptions;
  }
  EXPECT_GT(num_preemptions, 0) << "the case must preempt to mean something";
}

TEST(SchedulerTest, StopsByItsRules) {
  const Request base = RequestOf(8, 10);
  const std::vector<int32_t> expected = ExpectedTokens(base);
  SchedulerSetup setup = SetupOf({}, 16);
  setup.eos_token_ids = {expected[3]};
  SchedulerHarness harness(setup);
  Request ignores_eos = base, stops_on_token = base, stops_late = base;
  ignores_eos.stop.ignore_eos = true;
  stops_on_token.stop.token_ids = {expected[2]};
  stops_late.stop.min_new_tokens = 4;  // the fourth may not be the end, and no fifth is eos
  const SequenceId eos_id = harness.Add(base);
  const SequenceId ignoring_id = harness.Add(ignores_eos);
  const SequenceId token_id = harness.Add(stops_on_token);
  const SequenceId late_id = harness.Add(stops_late);
  harness.RunToTheEnd();
  EXPECT_EQ(harness.of(eos_id).finish_reason, FinishReason::kStopEos);
  EXPECT_EQ(harness.of(eos_id).tokens.size(), 4u);
  EXPECT_EQ(harness.of(ignoring_id).finish_reason, FinishReason::kLength);
  EXPECT_EQ(harness.of(ignoring_id).tokens.size(), 10u);
  EXPECT_EQ(harness.of(token_id).finish_reason, FinishReason::kStopToken);
  EXPECT_EQ(harness.of(token_id).tokens.size(), 3u);
  EXPECT_EQ(harness.of(late_id).finish_reason, FinishReason::kLength);
}

TEST(SchedulerTest, RemovesWaitingAndRunningSequencesAtOnce) {
  SchedulerHarness harness(SetupOf({.max_sequences = 1}, 16));
  const SequenceId running = harness.Add(RequestOf(40, 5), 0);
  const SequenceId waiting = harness.Add(RequestOf(40, 5), 1);
  harness.Step();
  EXPECT_EQ(harness.scheduler().block_pool().num_used(), 3);
  EXPECT_TRUE(harness.scheduler().Remove(running));
  EXPECT_EQ(harness.scheduler().block_pool().num_used(), 0);
  EXPECT_TRUE(harness.scheduler().Remove(waiting));
  EXPECT_FALSE(harness.scheduler().Remove(waiting));
  EXPECT_TRUE(harness.scheduler().empty());
  EXPECT_EQ(harness.scheduler().num_waiting_tokens(), 0);
  EXPECT_EQ(harness.scheduler().CheckInvariants(), absl::OkStatus());
  EXPECT_FALSE(harness.Step());
}

TEST(SchedulerTest, TakesOutWhatIsPastItsDeadlineWhereverItIs) {
  SchedulerHarness harness(SetupOf({.max_sequences = 1}, 16));
  Request early = RequestOf(40, 5), late = RequestOf(40, 5);
  early.deadline = At(5);
  late.deadline = At(9);
  const SequenceId running = harness.Add(early, 0);
  const SequenceId waiting = harness.Add(early, 1);
  const SequenceId later = harness.Add(late, 2);
  const SequenceId timeless = harness.Add(RequestOf(4, 5), 3);
  harness.Step();
  EXPECT_THAT(harness.scheduler().TakeExpired(At(4.9)), ElementsAre());
  EXPECT_THAT(harness.scheduler().TakeExpired(At(5)), ElementsAre(running, waiting));
  EXPECT_EQ(harness.scheduler().block_pool().num_used(), 0);
  EXPECT_THAT(harness.scheduler().TakeExpired(At(1000)), ElementsAre(later));
  harness.RunToTheEnd();
  EXPECT_TRUE(harness.of(timeless).ended);
}

TEST(SchedulerTest, AFailedStepEndsExactlyItsSequences) {
  FakeWorkerOptions faults;
  faults.before_step = [](int64_t n, const StepPlan&) {
    return n == 1 ? absl::InternalError("rank 3 is broken") : absl::OkStatus();
  };
  SchedulerHarness harness(SetupOf({.max_sequences = 2}, 16), faults);
  const Request request = RequestOf(8, 5);
  const SequenceId a = harness.Add(request, 0), b = harness.Add(request, 1);
  const SequenceId spared = harness.Add(request, 2);
  harness.RunToTheEnd();
  for (const SequenceId id : {a, b}) {
    EXPECT_EQ(harness.of(id).status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(harness.of(id).status.message()), HasSubstr("rank 3 is broken"));
    EXPECT_EQ(harness.of(id).tokens.size(), 1u);
  }
  EXPECT_EQ(harness.of(spared).tokens, ExpectedTokens(request));
}

TEST(SchedulerTest, AFailedRowEndsItsSequenceAlone) {
  const Request bad = RequestOf(20, 5, 1), good = RequestOf(20, 5, 2);
  FakeWorkerOptions faults;
  faults.row_fails = [&](int32_t token_id, int32_t position) {
    return position == 7 && token_id == bad.prompt_ids[7];
  };
  SchedulerHarness harness(SetupOf({}, 16), faults);
  const SequenceId bad_id = harness.Add(bad), good_id = harness.Add(good);
  harness.RunToTheEnd();
  EXPECT_EQ(harness.of(bad_id).status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(harness.of(bad_id).status.message()), HasSubstr("position 7"));
  EXPECT_EQ(harness.of(good_id).tokens, ExpectedTokens(good));
}

TEST(SchedulerTest, AFailedSampleEndsItsSequenceAlone) {
  Scheduler scheduler(SetupOf({}, 16));
  for (int i = 0; i < 4; ++i) {
    Request request = RequestOf(4, 5);
    if (i == 2) request.sampling.allowed_token_ids = {7};
    scheduler.Add(i, std::make_shared<const Request>(request), At(i));
  }
  const StepPlan& plan = scheduler.Plan();
  ASSERT_EQ(plan.logit_rows.size(), 4u);
  std::vector<RowSample> samples(4);
  samples[1].failure = SampleFailure::kNotFinite;
  samples[2].failure = samples[3].failure = SampleFailure::kAllForbidden;
  const std::vector<uint8_t> row_failed(plan.num_rows(), 0);
  const auto updates = scheduler.Commit({.samples = samples, .row_failed = row_failed});
  EXPECT_TRUE(updates[0].status.ok());
  EXPECT_EQ(updates[1].status.code(), absl::StatusCode::kInternal);
  // The model is sound, the request is not: its field is named.
  EXPECT_EQ(updates[2].status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(updates[2].status.message()),
              AllOf(StartsWith("sampling.allowed_token_ids: "), HasSubstr("position 4")));
  EXPECT_THAT(std::string(updates[3].status.message()), StartsWith("sampling.bad_words: "));
  EXPECT_EQ(scheduler.num_running(), 1);
  EXPECT_EQ(scheduler.CheckInvariants(), absl::OkStatus());
}

// The promise behind everything: what a request yields depends on nothing but itself.
TEST(SchedulerTest, TokensDoNotDependOnChunksCompanyPreemptionOrLostRanks) {
  int64_t num_preemptions = 0;
  int num_abandoned = 0;
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    std::mt19937 random(seed);
    const auto uniform = [&](int low, int high) {
      return low + static_cast<int>(random() % static_cast<uint32_t>(high - low + 1));
    };
    SchedulerSetup setup = SetupOf(
        {.max_sequences = uniform(1, 12), .max_step_tokens = uniform(1, 80), .max_step_ms = 10},
        uniform(8, 24));
    setup.block_tokens = uniform(1, 20);
    setup.num_ranks = seed % 3 == 0 ? 1 : uniform(1, 4);
    const int most = static_cast<int>(setup.num_blocks) * setup.block_tokens;
    FakeWorkerOptions faults;
    std::mt19937 fates(seed);
    const int num_ranks = setup.num_ranks;
    std::vector<int> up = AllRanks(num_ranks).members;
    faults.ranks_up = [&](int64_t) {
      if (seed % 2 == 0 || fates() % 10 > 0) return up;
      up = {0};
      for (int r = 1; r < num_ranks; ++r) {
        if (fates() % 3 > 0) up.push_back(r);
      }
      return up;
    };
    SchedulerHarness harness(setup, faults);
    std::map<SequenceId, Request> requests;
    std::set<SequenceId> removed;
    for (int step = 0; step < 400 || !harness.scheduler().empty(); ++step) {
      ASSERT_LT(step, 100000) << "seed " << seed;
      if (step < 400 && requests.size() < 25 && uniform(0, 3) == 0) {
        const int num_prompt_tokens = uniform(1, most - 1);
        Request request =
            RequestOf(num_prompt_tokens, uniform(1, std::min(60, most - num_prompt_tokens)),
                      uniform(1, 4));  // few contents, so that many prompts begin alike
        if (uniform(0, 2) == 0) request.cache_salt = "salt";
        if (uniform(0, 3) == 0) request.sampling.n = uniform(2, 4);
        request.priority = static_cast<Priority>(uniform(0, 2));
        requests[harness.Add(request, step)] = request;
      }
      if (uniform(0, 30) == 0 && !requests.empty()) {
        const SequenceId id = requests.begin()->first + uniform(0, 24);
        if (harness.scheduler().Remove(id)) removed.insert(id);
      }
      harness.Step(std::chrono::microseconds(uniform(1, 20000)));
      num_preemptions += harness.scheduler().num_preemptions();
    }
    for (const auto& [id, request] : requests) {
      if (removed.count(id) > 0) continue;
      for (SequenceId output = id; output < id + request.sampling.n; ++output) {
        EXPECT_EQ(harness.of(output).tokens, ExpectedTokens(request))
            << "seed " << seed << " id " << output;
        EXPECT_EQ(harness.of(output).finish_reason, FinishReason::kLength);
      }
    }
    EXPECT_EQ(harness.scheduler().num_used_blocks(), 0) << "seed " << seed;
    num_abandoned += harness.num_abandoned();
  }
  EXPECT_GT(num_abandoned, 100) << "the case must lose ranks to mean something";
  EXPECT_GT(num_preemptions, 100) << "the case must preempt to mean something";
}

std::vector<int32_t> RanksOf(const StepPlan& plan) { return plan.span_ranks; }

TEST(SchedulerTest, SequencesStartWhereThereIsLeastToDoAndStay) {
  SchedulerSetup setup = SetupOf({.max_sequences = 8, .max_step_tokens = 256}, 32);
  setup.num_ranks = 3;
  SchedulerHarness harness(setup);
  harness.Add(RequestOf(18, 4, 1));
  harness.Add(RequestOf(6, 4, 2));
  harness.Add(RequestOf(9, 4, 3));
  harness.Add(RequestOf(2, 4, 4));  // beside the shortest
  for (int step = 0; step < 4; ++step) {
    harness.Step();
    EXPECT_THAT(RanksOf(harness.last_plan()), ElementsAre(0, 1, 2, 1));
  }
  EXPECT_EQ(harness.scheduler().num_blocks(), 96);
  EXPECT_EQ(harness.scheduler().num_used_blocks(), 0);
}

TEST(SchedulerTest, ARankThatHasThePrefixIsPreferred) {
  SchedulerSetup setup = SetupOf({.max_sequences = 8, .max_step_tokens = 256}, 32);
  setup.num_ranks = 2;
  SchedulerHarness harness(setup);
  harness.Add(RequestOf(8, 60, 1));
  harness.Add(RequestOf(30, 1, 2));
  harness.Step();
  EXPECT_THAT(RanksOf(harness.last_plan()), ElementsAre(0, 1));
  harness.Add(RequestOf(14, 60, 3));  // rank 1 is idle again
  harness.Step();
  EXPECT_THAT(RanksOf(harness.last_plan()), ElementsAre(0, 1));
  harness.Add(RequestOf(30, 1, 2));  // where more runs, but less of it is left to compute
  harness.Step();
  EXPECT_THAT(RanksOf(harness.last_plan()), ElementsAre(0, 1, 1));
  EXPECT_EQ(harness.last_plan().spans[2].first_position, 16);
  harness.Add(RequestOf(30, 1, 4));  // nobody has it
  harness.Step();
  EXPECT_THAT(RanksOf(harness.last_plan()), ElementsAre(0, 1, 0));
}

TEST(SchedulerTest, PromptsOfSeveralRanksShareAStep) {
  SchedulerSetup setup = SetupOf({.max_sequences = 4, .max_step_tokens = 64}, 32);
  setup.num_ranks = 2;
  SchedulerHarness harness(setup);
  harness.Add(RequestOf(200, 1, 1));
  harness.Add(RequestOf(100, 1, 2));
  harness.Step();
  EXPECT_THAT(RanksOf(harness.last_plan()), ElementsAre(0, 1));
  EXPECT_EQ(harness.last_plan().spans[0].num_rows, 32);
  EXPECT_EQ(harness.last_plan().spans[1].num_rows, 32);
}

TEST(SchedulerTest, ALostRankTakesItsCacheAlongAndComesBackEmpty) {
  SchedulerSetup setup = SetupOf({.max_sequences = 8, .max_step_tokens = 256}, 32);
  setup.num_ranks = 2;
  std::vector<int> up = {0, 1};
  SchedulerHarness harness(setup, {.ranks_up = [&up](int64_t) { return up; }});
  harness.Add(RequestOf(8, 60, 1));
  const SequenceId lost = harness.Add(RequestOf(30, 20, 2));
  harness.Step();
  harness.Step();
  EXPECT_THAT(RanksOf(harness.last_plan()), ElementsAre(0, 1));
  up = {0};
  harness.Step();
  EXPECT_EQ(harness.num_abandoned(), 1);
  harness.Step();
  EXPECT_THAT(RanksOf(harness.last_plan()), ElementsAre(0, 0));
  EXPECT_EQ(harness.last_plan().spans[1].first_position, 0) << "nothing of it was on rank 0";
  EXPECT_EQ(harness.scheduler().num_blocks(), 32);
  up = {0, 1};
  harness.Step();
  harness.Add(RequestOf(30, 1, 2));  // which rank 1 has computed once
  harness.Step();
  EXPECT_THAT(RanksOf(harness.last_plan()), ElementsAre(0, 0, 1));
  EXPECT_EQ(harness.last_plan().spans[2].first_position, 0);
  harness.RunToTheEnd();
  EXPECT_EQ(harness.of(lost).tokens, ExpectedTokens(RequestOf(30, 20, 2)));
}

TEST(SchedulerTest, ASequenceTakesBlocksOfItsOwnRankOnly) {
  SchedulerSetup setup = SetupOf({.max_sequences = 4, .max_step_tokens = 256}, 4);
  setup.num_ranks = 2;
  SchedulerHarness harness(setup);
  const SequenceId first = harness.Add(RequestOf(10, 50, 1), 0);
  const SequenceId other = harness.Add(RequestOf(30, 30, 2), 1);
  const SequenceId last = harness.Add(RequestOf(12, 40, 3), 2);  // beside the first
  harness.RunToTheEnd();
  EXPECT_EQ(harness.of(first).num_preemptions, 0);
  EXPECT_EQ(harness.of(other).num_preemptions, 0) << "on a rank of its own";
  EXPECT_GT(harness.of(last).num_preemptions, 0);
}

TEST(SchedulerDeathTest, AbortsOnARequestThatCanNeverFit) {
  Scheduler scheduler(SetupOf({}, 4));
  EXPECT_DEATH(scheduler.Add(1, std::make_shared<const Request>(RequestOf(60, 5)), At(0)),
               "65 tokens, limit 64");
}

}  // namespace
}  // namespace gatehouse
