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

TEST(BlockPoolTest, TakesRetiredBlocksLastAndTheLongestRetiredFirst) {
  BlockPool pool(4);
  for (int i = 0; i < 4; ++i) pool.Take();
  pool.Retire(2);
  pool.Retire(0);
  pool.Release(1);
  EXPECT_EQ(pool.Take(), 1);
  EXPECT_EQ(pool.Take(), 2);
  EXPECT_EQ(pool.Take(), 0);
}

TEST(BlockPoolTest, GivesAFreeBlockANewHolderFromTheMiddleOfTheLine) {
  BlockPool pool(3);
  for (int i = 0; i < 3; ++i) pool.Take();
  for (int i = 0; i < 3; ++i) pool.Retire(i);
  pool.Share(1);
  EXPECT_EQ(pool.ref_count(1), 1);
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_TRUE(pool.CheckInvariants().ok());
  EXPECT_EQ(pool.Take(), 0);
  EXPECT_EQ(pool.Take(), 2);
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
    } else if (choice == 1) {
      const int32_t block_id = static_cast<int32_t>(random() % kNumBlocks);  // held or free
      pool.Share(block_id);
      ++holders[block_id];
    } else if (!holders.empty()) {
      random() % 2 == 0 ? pool.Release(any->first) : pool.Retire(any->first);
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
  EXPECT_DEATH(pool.Retire(0), "block 0 is free");
  EXPECT_DEATH(pool.ref_count(1), "block 1");
  pool.Take();
  EXPECT_DEATH(pool.Take(), "all 1 blocks are held");
  EXPECT_DEATH(BlockPool(0), "num_blocks 0");
}

}  // namespace
}  // namespace gatehouse
