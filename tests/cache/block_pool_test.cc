#include "engine/cache/block_pool.h"

#include <map>
#include <random>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace gatehouse {
namespace {

TEST(BlockPoolTest, HandsOutEveryBlockOnce) {
  BlockPool pool(5);
  std::set<int32_t> taken;
  for (int i = 0; i < 5; ++i) taken.insert(pool.Take());
  EXPECT_EQ(taken, (std::set<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(pool.num_free(), 0);
  EXPECT_EQ(pool.num_used(), 5);
  EXPECT_TRUE(pool.CheckInvariants().ok());
}

TEST(BlockPoolTest, KeepsASharedBlockUntilItsLastHolderGoes) {
  BlockPool pool(2);
  const int32_t block_id = pool.Take();
  pool.Share(block_id);
  EXPECT_EQ(pool.ref_count(block_id), 2);
  pool.Release(block_id);
  EXPECT_EQ(pool.num_free(), 1);
  pool.Release(block_id);
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_EQ(pool.ref_count(block_id), 0);
  EXPECT_TRUE(pool.CheckInvariants().ok());
}

TEST(BlockPoolTest, TakesTheBlockFreedLastFirst) {
  BlockPool pool(8);
  pool.Take();
  const int32_t warm = pool.Take();
  pool.Take();
  pool.Release(warm);
  EXPECT_EQ(pool.Take(), warm);
}

// The oracle is a map from id to number of holders.
TEST(BlockPoolTest, AgreesWithAMapUnderRandomUse) {
  constexpr int kSeed = 7;
  constexpr int kNumBlocks = 17;
  std::mt19937 random(kSeed);
  BlockPool pool(kNumBlocks);
  std::map<int32_t, int> holders;
  for (int step = 0; step < 20000; ++step) {
    const int choice = static_cast<int>(random() % 3);
    auto any = holders.begin();
    if (!holders.empty()) std::advance(any, random() % holders.size());
    if (choice == 0 && pool.num_free() > 0) {
      const int32_t block_id = pool.Take();
      ASSERT_EQ(holders.count(block_id), 0u) << "step " << step << " seed " << kSeed;
      holders[block_id] = 1;
    } else if (choice == 1 && !holders.empty()) {
      pool.Share(any->first);
      ++any->second;
    } else if (!holders.empty()) {
      pool.Release(any->first);
      if (--any->second == 0) holders.erase(any);
    }
    ASSERT_EQ(pool.num_used(), static_cast<int32_t>(holders.size()));
    for (const auto& [block_id, count] : holders) ASSERT_EQ(pool.ref_count(block_id), count);
    ASSERT_TRUE(pool.CheckInvariants().ok()) << pool.CheckInvariants();
  }
}

TEST(BlockPoolDeathTest, AbortsWhenTheCallerIsWrong) {
  BlockPool pool(1);
  EXPECT_DEATH(pool.Release(0), "block 0 is free");
  EXPECT_DEATH(pool.Share(0), "block 0 is free");
  EXPECT_DEATH(pool.ref_count(1), "block 1");
  pool.Take();
  EXPECT_DEATH(pool.Take(), "all 1 blocks are held");
  EXPECT_DEATH(BlockPool(0), "num_blocks 0");
}

}  // namespace
}  // namespace gatehouse
