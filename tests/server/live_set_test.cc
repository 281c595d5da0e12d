#include "server/live_set.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace gatehouse {
namespace {

TEST(LiveSetTest, HoldsItsMembersUntilTheyAreRemoved) {
  LiveSet<int> set;
  const auto member = std::make_shared<int>(1);
  set.Add(member);
  EXPECT_EQ(member.use_count(), 2);
  EXPECT_EQ(set.size(), 1u);
  EXPECT_FALSE(set.WaitUntilEmpty(Duration::zero()));
  set.Remove(member.get());
  EXPECT_EQ(member.use_count(), 1);
  EXPECT_TRUE(set.WaitUntilEmpty(Duration::zero()));
}

TEST(LiveSetTest, NeverTakesMoreThanTheLimitWhoeverComesAtOnce) {
  constexpr size_t kLimit = 5;
  for (int round = 0; round < 50; ++round) {
    LiveSet<int> set;
    std::atomic<int> num_added = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&] {
        for (int j = 0; j < 4; ++j) {
          if (set.AddIfFewer(kLimit, std::make_shared<int>(j))) ++num_added;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(num_added, static_cast<int>(kLimit));
    EXPECT_EQ(set.size(), kLimit);
  }
}

}  // namespace
}  // namespace gatehouse
