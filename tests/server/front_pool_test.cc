#include "server/front_pool.h"

#include <gtest/gtest.h>

#include <future>
#include <optional>
#include <string>

namespace gatehouse {
namespace {

// One thread that is busy until Release, so that everything else waits.
class FrontPoolTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(pool_->Run("a", 1, [this] {
      started_.set_value();
      released_.get_future().wait();
    }));
    started_.get_future().wait();
  }
  void Release() { released_.set_value(); }
  bool Run(size_t num_bytes) { return RunAs("a", num_bytes); }
  bool RunAs(const std::string& tenant, size_t num_bytes) {
    return pool_->Run(tenant, num_bytes, [this, tenant] { order_ += tenant; });
  }
  // In which order the tenants' tasks ran.
  std::string ReleaseAndFinish() {
    Release();
    pool_.reset();
    return order_;
  }

  std::promise<void> started_, released_;
  std::string order_;  // by the pool's one thread
  std::optional<FrontPool> pool_{std::in_place, 1,
                                 FrontPool::Limits{.max_tasks = 6, .max_bytes = 100}};
};

TEST_F(FrontPoolTest, RefusesMoreTasksThanMayWait) {
  for (int i = 0; i < 6; ++i) EXPECT_TRUE(Run(1));
  EXPECT_FALSE(Run(1));
  Release();
}

TEST_F(FrontPoolTest, RefusesMoreBytesThanMayWaitUntilTheyAreTaken) {
  EXPECT_FALSE(Run(101));
  EXPECT_TRUE(Run(60));
  EXPECT_FALSE(Run(41));
  EXPECT_TRUE(Run(40));
  std::promise<void> ran;
  EXPECT_TRUE(pool_->Run("a", 0, [&] { ran.set_value(); }));
  Release();
  ran.get_future().wait();  // first come, first served: the others have run
  EXPECT_TRUE(Run(100));
}

TEST_F(FrontPoolTest, TenantsTakeTurns) {
  for (const char* const tenant : {"a", "a", "a", "b", "b", "c"}) {
    EXPECT_TRUE(RunAs(tenant, 1));
  }
  EXPECT_EQ(ReleaseAndFinish(), "abcaba");
}

TEST_F(FrontPoolTest, APoolThatOthersFilledIsOpenUpToATenantsEqualPart) {
  for (int i = 0; i < 6; ++i) EXPECT_TRUE(RunAs("a", 10));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(RunAs("b", 10)) << i;  // half of six
  EXPECT_FALSE(RunAs("b", 10));
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(RunAs("c", 10)) << i;  // a third
  EXPECT_FALSE(RunAs("c", 10));
  EXPECT_FALSE(RunAs("a", 10));
  EXPECT_EQ(ReleaseAndFinish(), "abcabcabaaa");
}

TEST_F(FrontPoolTest, BytesThatOthersHoldLeaveATenantItsEqualPart) {
  EXPECT_TRUE(RunAs("a", 100));
  EXPECT_FALSE(RunAs("b", 51));
  EXPECT_TRUE(RunAs("b", 50));
  EXPECT_FALSE(RunAs("b", 1));
  Release();
}

}  // namespace
}  // namespace gatehouse
