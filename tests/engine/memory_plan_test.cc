#include "engine/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gatehouse {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMiB = 1 << 20;

// 10 MiB of weights, blocks of 1 MiB for 16 tokens, sequences of 64 tokens (4 blocks).
MemoryDemand Demand() {
  return {.expert_weight_bytes = 6 * kMiB,
          .dense_weight_bytes = 3 * kMiB,
          .workspace_bytes = kMiB,
          .kv_block_bytes = kMiB,
          .block_tokens = 16,
          .max_sequences = 8,
          .max_context = 64,
          .available_bytes = 1000 * kMiB};
}

TEST(PlanMemoryTest, GivesEverySequenceItsWholeContextWhereMemoryAllows) {
  const auto plan = PlanMemory(Demand());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->num_kv_blocks, 32);
  EXPECT_EQ(plan->kv_cache_bytes, 32 * kMiB);
  EXPECT_EQ(plan->total_bytes(), 42 * kMiB);
}

TEST(PlanMemoryTest, TakesAtMostHalfOfWhatTheWeightsLeave) {
  MemoryDemand demand = Demand();
  demand.available_bytes = 30 * kMiB;
  const auto plan = PlanMemory(demand);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->num_kv_blocks, 10);
}

TEST(PlanMemoryTest, TakesTheConfiguredCacheInWholeBlocks) {
  MemoryDemand demand = Demand();
  demand.kv_cache_bytes = 5 * kMiB + 17;
  const auto plan = PlanMemory(demand);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->num_kv_blocks, 5);
}

TEST(PlanMemoryTest, RefusesWeightsThatDoNotFitWithBothNumbers) {
  MemoryDemand demand = Demand();
  demand.available_bytes = 9 * kMiB;
  EXPECT_THAT(PlanMemory(demand).status().message(),
              HasSubstr("need 10.0 MiB, but 9.0 MiB are available"));
}

TEST(PlanMemoryTest, RefusesACacheTooSmallForOneSequence) {
  MemoryDemand demand = Demand();
  demand.kv_cache_bytes = 3 * kMiB;
  EXPECT_THAT(PlanMemory(demand).status().message(),
              HasSubstr("holds 48 tokens, but one sequence of max_context 64 needs 4.0 MiB"));
}

TEST(PlanMemoryTest, RefusesAConfiguredCacheThatDoesNotFit) {
  MemoryDemand demand = Demand();
  demand.kv_cache_bytes = 995 * kMiB;
  EXPECT_THAT(PlanMemory(demand).status().message(), HasSubstr("need 1005.0 MiB, but 1000.0 MiB"));
}

TEST(AvailableMemoryBytesTest, IsWhatThisProcessCouldTouch) {
  EXPECT_GT(AvailableMemoryBytes(), kMiB);
  EXPECT_LT(AvailableMemoryBytes(), int64_t{1} << 50);
}

}  // namespace
}  // namespace gatehouse
