#include "engine/completion_rate.h"

#include "gtest/gtest.h"

namespace gatehouse {
namespace {

TEST(CompletionRateTest, KnowsNothingAtFirst) {
  EXPECT_EQ(CompletionRate().RetryAfter(100), std::chrono::seconds(1));
}

TEST(CompletionRateTest, WaitsForAnEighthOfTheQueue) {
  CompletionRate rate;
  rate.Add(2, std::chrono::seconds(4));  // one in two seconds
  EXPECT_NEAR(ToSeconds(rate.RetryAfter(40)), 10, 1e-6);
  EXPECT_NEAR(ToSeconds(rate.RetryAfter(0)), 2, 1e-6);
}

TEST(CompletionRateTest, ForgetsOldWork) {
  CompletionRate rate;
  for (int i = 0; i < 100; ++i) rate.Add(1, std::chrono::milliseconds(10));
  for (int i = 0; i < 300; ++i) rate.Add(1, std::chrono::seconds(1));  // five minutes of it
  EXPECT_NEAR(ToSeconds(rate.RetryAfter(0)), 1, 0.01);
}

TEST(CompletionRateTest, StaysWithinItsLimits) {
  CompletionRate rate;
  rate.Add(1000, std::chrono::milliseconds(1));
  EXPECT_EQ(rate.RetryAfter(8), CompletionRate::kShortestRetry);
  CompletionRate slow;
  slow.Add(1, std::chrono::hours(10));
  EXPECT_EQ(slow.RetryAfter(1000), CompletionRate::kLongestRetry);
}

}  // namespace
}  // namespace gatehouse
