#include "engine/comm/rank_threads.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <set>
#include <thread>

#include "engine/comm/in_process.h"

namespace gatehouse {
namespace {

TEST(RankThreadsTest, EveryRankRunsOnceOnAThreadOfItsOwn) {
  constexpr int kRanks = 4;
  RankThreads threads(kRanks);
  InProcessGroup group({.membership = AllRanks(kRanks), .deadline = std::chrono::minutes(1)});
  for (int run = 0; run < 200; ++run) {
    std::array<int, kRanks> num_runs{};
    std::array<std::thread::id, kRanks> ids;
    threads.Run([&](int rank) {
      ++num_runs[rank];
      ids[rank] = std::this_thread::get_id();
      EXPECT_TRUE(group.rank(rank).Barrier().ok());  // ranks wait for each other
    });
    for (const int count : num_runs) EXPECT_EQ(count, 1);
    EXPECT_EQ(std::set<std::thread::id>(ids.begin(), ids.end()).size(), size_t{kRanks});
    EXPECT_EQ(ids[0], std::this_thread::get_id());
  }
}

TEST(RankThreadsTest, OneRankIsTheCallers) {
  RankThreads threads(1);
  int num_runs = 0;
  threads.Run([&](int rank) { num_runs += 1 + rank; });
  EXPECT_EQ(num_runs, 1);
}

}  // namespace
}  // namespace gatehouse
