// What sequences share: prompts that begin alike, and the outputs of one request.
#include "engine/scheduler/block_tables.h"

#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/scheduler/scheduler_harness.h"

namespace gatehouse {
namespace {

using ::testing::ElementsAre;

TEST(BlockTablesTest, TakesOverWhatTheCacheHasOfAPrompt) {
  SchedulerHarness harness(SetupOf({}, 16));
  const Request request = RequestOf(40, 5);
  const SequenceId cold = harness.Add(request);
  harness.RunToTheEnd();
  EXPECT_EQ(harness.scheduler().block_pool().num_used(), 0);
  Request longer = request;  // a second turn: what was said, and more
  const std::vector<int32_t> generated = ExpectedTokens(request);
  longer.prompt_ids.insert(longer.prompt_ids.end(), generated.begin(), generated.end());
  longer.prompt_ids.insert(longer.prompt_ids.end(), 20, 7);
  const SequenceId warm = harness.Add(request), next_turn = harness.Add(longer);
  harness.Step();
  EXPECT_EQ(harness.last_plan().num_prefill_tokens, 8 + 33);
  EXPECT_EQ(harness.last_plan().spans[0].block_ids[1], harness.last_plan().spans[1].block_ids[1]);
  harness.RunToTheEnd();
  EXPECT_EQ(harness.of(cold).num_cached_prompt_tokens, 0);
  EXPECT_EQ(harness.of(warm).num_cached_prompt_tokens, 32);
  EXPECT_EQ(harness.of(next_turn).num_cached_prompt_tokens, 32);
  EXPECT_EQ(harness.of(warm).tokens, generated);
  EXPECT_EQ(harness.of(next_turn).tokens, ExpectedTokens(longer));
}

TEST(BlockTablesTest, ComputesTheLastTokenOfAPromptThatIsWhollyInTheCache) {
  SchedulerHarness harness(SetupOf({}, 16));
  const Request request = RequestOf(32, 3);
  harness.Add(request);
  harness.RunToTheEnd();
  const SequenceId warm = harness.Add(request);
  harness.Step();
  EXPECT_EQ(harness.last_plan().num_prefill_tokens, 16);
  harness.RunToTheEnd();
  EXPECT_EQ(harness.of(warm).num_cached_prompt_tokens, 16);
  EXPECT_EQ(harness.of(warm).tokens, ExpectedTokens(request));
}

// The second one's turn to compute comes when the first has done the common part.
TEST(BlockTablesTest, TakesOverWhatANeighbourComputedWhileItWaitedForItsTurn) {
  SchedulerHarness harness(SetupOf({.max_step_tokens = 64}, 16));
  const Request request = RequestOf(64, 3);
  const SequenceId first = harness.Add(request, 0), second = harness.Add(request, 1);
  harness.RunToTheEnd();
  EXPECT_EQ(harness.of(first).num_cached_prompt_tokens, 0);
  EXPECT_EQ(harness.of(second).num_cached_prompt_tokens, 48);
  EXPECT_EQ(harness.of(second).tokens, ExpectedTokens(request));
}

TEST(BlockTablesTest, TwoThatComputedTheSameKeepOneCopy) {
  SchedulerHarness harness(SetupOf({}, 16));
  const Request request = RequestOf(32, 3);
  const SequenceId first = harness.Add(request, 0), second = harness.Add(request, 1);
  harness.Step();
  EXPECT_EQ(harness.last_plan().num_prefill_tokens, 64);
  EXPECT_EQ(harness.scheduler().block_pool().num_used(), 2);
  harness.RunToTheEnd();
  EXPECT_EQ(harness.of(first).tokens, ExpectedTokens(request));
  EXPECT_EQ(harness.of(second).tokens, ExpectedTokens(request));
}

TEST(BlockTablesTest, SharesNothingBetweenTenantsOrSalts) {
  SchedulerHarness harness(SetupOf({}, 64));
  Request base = RequestOf(40, 2), other_salt = base, other_tenant = base;
  // The same bytes when name and salt are put together.
  base.tenant = std::make_shared<const Tenant>(Tenant{.name = "ab"});
  base.cache_salt = "c";
  other_salt.tenant = base.tenant;
  other_salt.cache_salt = "d";
  other_tenant.tenant = std::make_shared<const Tenant>(Tenant{.name = "a"});
  other_tenant.cache_salt = "bc";
  harness.Add(base);
  harness.RunToTheEnd();
  std::vector<int32_t> num_cached;
  for (const Request& request : {base, other_salt, other_tenant}) {
    const SequenceId id = harness.Add(request);
    harness.RunToTheEnd();
    num_cached.push_back(harness.of(id).num_cached_prompt_tokens);
  }
  EXPECT_THAT(num_cached, ElementsAre(32, 0, 0));
}

TEST(BlockTablesTest, EvictsWhatWasUsedLongestAgoAndThePrefixLast) {
  SchedulerHarness harness(SetupOf({}, 8));
  const Request a = RequestOf(49, 1, 1), b = RequestOf(49, 1, 2);
  harness.Add(a);
  harness.RunToTheEnd();  // three blocks of a, then three of b
  harness.Add(b);
  harness.RunToTheEnd();
  harness.Add(RequestOf(49, 1, 3));  // two blocks are free, two of a's must go: its last ones
  harness.RunToTheEnd();
  const SequenceId b_again = harness.Add(b);
  harness.RunToTheEnd();
  EXPECT_EQ(harness.of(b_again).num_cached_prompt_tokens, 48);
  const SequenceId a_again = harness.Add(a);
  harness.RunToTheEnd();
  EXPECT_EQ(harness.of(a_again).num_cached_prompt_tokens, 16);
}

TEST(BlockTablesTest, APreemptedSequenceFindsItsOwnBlocksAgain) {
  SchedulerHarness harness(SetupOf({}, 8));
  const Request old_request = RequestOf(10, 70, 1), young_request = RequestOf(10, 70, 2);
  harness.Add(old_request, 0);
  const SequenceId young = harness.Add(young_request, 1);
  int64_t num_rows = 0;
  while (harness.Step()) num_rows += harness.last_plan().num_rows();
  EXPECT_EQ(harness.of(young).num_preemptions, 1);
  EXPECT_EQ(harness.of(young).tokens, ExpectedTokens(young_request));
  // 79 rows each; without the cache some 60 of the younger's would have been computed twice.
  EXPECT_GE(num_rows, 2 * 79);
  EXPECT_LT(num_rows, 2 * 79 + 40);
}

TEST(BlockTablesTest, OutputsShareThePromptAndComputeItOnce) {
  SchedulerHarness harness(SetupOf({}, 16));
  Request request = RequestOf(40, 5);
  request.sampling.n = 4;
  const SequenceId ticket = harness.Add(request);
  harness.Step();
  EXPECT_EQ(harness.last_plan().num_prefill_tokens, 40);
  EXPECT_EQ(harness.scheduler().num_waiting(), 3);
  EXPECT_EQ(harness.scheduler().num_waiting_tokens(), 3);
  harness.Step();
  EXPECT_EQ(harness.last_plan().num_prefill_tokens, 3 * 8);  // behind the last full block
  EXPECT_EQ(harness.last_plan().num_decode_tokens, 1);
  EXPECT_EQ(harness.scheduler().block_pool().num_used(), 2 + 4);
  harness.RunToTheEnd();
  for (SequenceId id = ticket; id < ticket + 4; ++id) {
    EXPECT_EQ(harness.of(id).tokens, ExpectedTokens(request)) << id - ticket;
    EXPECT_EQ(harness.of(id).finish_reason, FinishReason::kLength);
  }
  // Of the prompt only the first tells.
  EXPECT_EQ(harness.of(ticket).new_positions.size(), 44u);
  EXPECT_EQ(*harness.of(ticket + 1).new_positions.begin(), 40);
  EXPECT_TRUE(harness.scheduler().empty());
}

TEST(BlockTablesTest, RemovesARequestWithAllItsOutputsWhereverTheyAre) {
  for (int num_steps = 0; num_steps <= 3; ++num_steps) {
    SchedulerHarness harness(SetupOf({.max_sequences = 2}, 16));
    Request request = RequestOf(40, 5);
    request.sampling.n = 4;
    request.deadline = At(9);
    const SequenceId ticket = harness.Add(request);
    for (int i = 0; i < num_steps; ++i) harness.Step();
    if (num_steps == 3) harness.scheduler().RemoveOutput(ticket + 2);
    EXPECT_TRUE(harness.scheduler().Remove(ticket));
    EXPECT_FALSE(harness.scheduler().Remove(ticket));
    EXPECT_EQ(harness.scheduler().block_pool().num_used(), 0);
    EXPECT_TRUE(harness.scheduler().empty());
    EXPECT_EQ(harness.scheduler().num_waiting_tokens(), 0);
    EXPECT_THAT(harness.scheduler().TakeExpired(At(10)), ElementsAre());
    EXPECT_EQ(harness.scheduler().CheckInvariants(), absl::OkStatus());
  }
}

TEST(BlockTablesTest, OneOutputMayGoWhileTheOthersStay) {
  SchedulerHarness harness(SetupOf({}, 16));
  Request request = RequestOf(40, 9);
  request.sampling.n = 3;
  const SequenceId ticket = harness.Add(request);
  harness.Step();
  harness.Step();
  harness.scheduler().RemoveOutput(ticket);
  harness.scheduler().RemoveOutput(ticket);  // it has ended: no-op
  EXPECT_EQ(harness.scheduler().CheckInvariants(), absl::OkStatus());
  harness.RunToTheEnd();
  EXPECT_FALSE(harness.of(ticket).ended);
  EXPECT_EQ(harness.of(ticket + 1).tokens, ExpectedTokens(request));
  EXPECT_EQ(harness.of(ticket + 2).tokens, ExpectedTokens(request));
}

}  // namespace
}  // namespace gatehouse
