#include "kernels/base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

namespace gatehouse {
namespace {

class ThreadPoolTest : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 4));

TEST_P(ThreadPoolTest, RunsEachUnitOnceOnAThreadOfItsOwnNumber) {
  ThreadPool pool(GetParam());
  ASSERT_EQ(pool.num_threads(), GetParam());
  for (const int num_units : {0, 1, 2, 3, 7, 64, 1000}) {
    std::vector<int> runs(num_units, 0);  // plain: a unit run twice at once is a race, too
    std::vector<std::atomic<int>> inside(GetParam());
    pool.Run(num_units, [&](int thread, int unit) {
      ASSERT_GE(thread, 0);
      ASSERT_LT(thread, GetParam());
      EXPECT_EQ(inside[thread].fetch_add(1), 0) << "two units at once under one thread number";
      ++runs[unit];
      inside[thread].fetch_sub(1);
    });
    for (int u = 0; u < num_units; ++u) ASSERT_EQ(runs[u], 1) << "unit " << u;
  }
}

// Data written before a region is seen in it, and data written in it is seen after it.
TEST_P(ThreadPoolTest, CarriesDataIntoAndOutOfManyShortRegions) {
  ThreadPool pool(GetParam());
  int64_t total = 0;
  std::vector<int64_t> parts(5);
  for (int64_t region = 0; region < 1000; ++region) {
    const int64_t input = region;  // on this stack: workers must not look after Run returned
    pool.Run(5, [&](int, int unit) { parts[unit] = input * unit; });
    for (const int64_t part : parts) total += part;
  }
  EXPECT_EQ(total, int64_t{1000} * 999 / 2 * 10);
}

TEST_P(ThreadPoolTest, TakesUnitsOfVeryUnequalLength) {
  ThreadPool pool(GetParam());
  std::atomic<int> done{0};
  pool.Run(50, [&](int, int unit) {
    if (unit % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    done.fetch_add(1);
  });
  EXPECT_EQ(done.load(), 50);
}

// Workers sleep after a while without work; both the first region after it and the destructor must
// wake them.
TEST_P(ThreadPoolTest, WakesSleepingWorkers) {
  for (int round = 0; round < 5; ++round) {
    ThreadPool pool(GetParam());
    for (int region = 0; region < 3; ++region) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      std::atomic<int> done{0};
      pool.Run(20, [&](int, int) { done.fetch_add(1); });
      ASSERT_EQ(done.load(), 20);
    }
    if (round % 2 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

TEST_P(ThreadPoolTest, MayBeMadeAndDestroyedWithoutWork) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(GetParam());
}

// Units that use a pool of their own, as an in-process rank does.
TEST(ThreadPoolNestingTest, UnitsMayRunOtherPools) {
  ThreadPool outer(2);
  std::vector<std::unique_ptr<ThreadPool>> inner;
  for (int t = 0; t < 2; ++t) inner.push_back(std::make_unique<ThreadPool>(2));
  std::vector<int> sums(40, 0);
  outer.Run(40, [&](int thread, int unit) {
    std::atomic<int> sum{0};
    inner[thread]->Run(10, [&](int, int i) { sum.fetch_add(i); });
    sums[unit] = sum.load();
  });
  for (const int sum : sums) EXPECT_EQ(sum, 45);
}

// Regions of random size with pauses around the moment at which workers fall asleep.
TEST(ThreadPoolStressTest, LosesNoUnitWhenWorkersFallAsleep) {
  ThreadPool pool(4);
  uint32_t random = 1;
  int64_t expected = 0;
  std::atomic<int64_t> total{0};
  for (int region = 0; region < 500; ++region) {
    random = random * 1664525 + 1013904223;
    const int num_units = static_cast<int>(random >> 28);
    expected += num_units;
    pool.Run(num_units, [&](int, int) { total.fetch_add(1, std::memory_order_relaxed); });
    if (region % 8 == 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(150 + (random >> 8) % 200));
    }
  }
  EXPECT_EQ(total.load(), expected);
}

TEST(ThreadPoolDeathTest, AbortsWithoutThreads) { EXPECT_DEATH(ThreadPool(0), "num_threads"); }

}  // namespace
}  // namespace gatehouse
