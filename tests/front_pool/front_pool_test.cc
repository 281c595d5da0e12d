#include "server/front_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <optional>
#include <string>
#include <vector>

namespace gatehouse {
namespace {

// One thread that is busy until Release, so that everything else waits.
class FrontPoolTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(absl::OkStatus(), pool_->Run("a", 1, [this] {
      started_.set_value();
      released_.get_future().wait();
    }));
    started_.get_future().wait();
  }
  void Release() { released_.set_value(); }
  absl::Status Run(size_t num_bytes) { return RunAs("a", num_bytes); }
  absl::Status RunAs(const std::string& tenant, size_t num_bytes) {
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
  for (int i = 0; i < 6; ++i) EXPECT_EQ(absl::OkStatus(), Run(2));
  EXPECT_EQ(Run(1), absl::ResourceExhaustedError(
                        "6 long texts of 12 bytes wait to be tokenised and one of 1 would join "
                        "them, limits 6 and 100"));
  Release();
}

TEST_F(FrontPoolTest, RefusesMoreBytesThanMayWaitUntilTheyAreTaken) {
  EXPECT_TRUE(absl::IsResourceExhausted(Run(101)));
  EXPECT_EQ(absl::OkStatus(), Run(60));
  EXPECT_TRUE(absl::IsResourceExhausted(Run(41)));
  EXPECT_EQ(absl::OkStatus(), Run(40));
  std::promise<void> ran;
  EXPECT_EQ(absl::OkStatus(), pool_->Run("a", 0, [&] { ran.set_value(); }));
  Release();
  ran.get_future().wait();  // first come, first served: the others have run
  EXPECT_EQ(absl::OkStatus(), Run(100));
}

TEST_F(FrontPoolTest, TenantsTakeTurns) {
  for (const char* const tenant : {"a", "a", "a", "b", "b", "c"}) {
    EXPECT_EQ(absl::OkStatus(), RunAs(tenant, 1));
  }
  EXPECT_EQ(ReleaseAndFinish(), "abcaba");
}

TEST_F(FrontPoolTest, APoolThatOthersFilledIsOpenUpToATenantsEqualPart) {
  for (int i = 0; i < 6; ++i) EXPECT_EQ(absl::OkStatus(), RunAs("a", 10));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(absl::OkStatus(), RunAs("b", 10)) << i;  // half of six
  EXPECT_TRUE(absl::IsResourceExhausted(RunAs("b", 10)));
  for (int i = 0; i < 2; ++i) EXPECT_EQ(absl::OkStatus(), RunAs("c", 10)) << i;  // a third
  EXPECT_TRUE(absl::IsResourceExhausted(RunAs("c", 10)));
  EXPECT_TRUE(absl::IsResourceExhausted(RunAs("a", 10)));
  EXPECT_EQ(ReleaseAndFinish(), "abcabcabaaa");
}

TEST_F(FrontPoolTest, BytesThatOthersHoldLeaveATenantItsEqualPart) {
  EXPECT_EQ(absl::OkStatus(), RunAs("a", 100));
  EXPECT_TRUE(absl::IsResourceExhausted(RunAs("b", 51)));
  EXPECT_EQ(absl::OkStatus(), RunAs("b", 50));
  EXPECT_TRUE(absl::IsResourceExhausted(RunAs("b", 1)));
  Release();
}

TEST(FrontPoolThreadsTest, RunsEachTaskOnceFromAnyThread) {
  constexpr int kSubmitters = 4, kTasks = 2000;
  std::atomic<int> num_run = 0;
  int num_taken = 0;
  {
    FrontPool pool(3, {.max_tasks = 50, .max_bytes = 1000});
    std::vector<std::future<int>> submitters;
    for (int s = 0; s < kSubmitters; ++s) {
      submitters.push_back(std::async(std::launch::async, [&pool, &num_run, s] {
        int taken = 0;
        for (int i = 0; i < kTasks; ++i) {
          taken += pool.Run(std::to_string(s), i % 40, [&num_run] { ++num_run; }).ok() ? 1 : 0;
        }
        return taken;
      }));
    }
    for (auto& submitter : submitters) num_taken += submitter.get();
  }
  EXPECT_EQ(num_run, num_taken);
  EXPECT_GT(num_taken, 0);
}

}  // namespace
}  // namespace gatehouse
