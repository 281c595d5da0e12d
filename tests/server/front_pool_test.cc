#include "server/front_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace gatehouse {
namespace {

// One thread that is busy until Release, so that everything else waits.
class FrontPoolTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(pool_.Run(1, [this] {
      started_.set_value();
      released_.get_future().wait();
    }));
    started_.get_future().wait();
  }
  void Release() { released_.set_value(); }
  bool Run(size_t num_bytes) {
    return pool_.Run(num_bytes, [this] { ++num_run_; });
  }

  std::promise<void> started_, released_;
  std::atomic<int> num_run_ = 0;
  FrontPool pool_{1, {.max_tasks = 3, .max_bytes = 100}};
};

TEST_F(FrontPoolTest, RefusesMoreTasksThanMayWait) {
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Run(1));
  EXPECT_FALSE(Run(1));
  Release();
}

TEST_F(FrontPoolTest, RefusesMoreBytesThanMayWaitUntilTheyAreTaken) {
  EXPECT_FALSE(Run(101));
  EXPECT_TRUE(Run(60));
  EXPECT_FALSE(Run(41));
  EXPECT_TRUE(Run(40));
  std::promise<void> ran;
  EXPECT_TRUE(pool_.Run(0, [&] { ran.set_value(); }));
  Release();
  ran.get_future().wait();  // first come, first served: the others have run
  EXPECT_EQ(num_run_, 2);
  EXPECT_TRUE(Run(100));
}

}  // namespace
}  // namespace gatehouse
