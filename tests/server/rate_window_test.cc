#include "server/rate_window.h"

#include <gtest/gtest.h>

namespace gatehouse {
namespace {

EngineTotals Generated(int64_t num_tokens) {
  return {.num_generated_tokens = num_tokens, .step_seconds = static_cast<double>(num_tokens) / 4};
}

TEST(RateWindowTest, TellsWhatTheLastTenSecondsBrought) {
  RateWindow window;
  EXPECT_EQ(window.Read().window_seconds, 0);
  const TimePoint start(std::chrono::hours(1));
  for (int second = 0; second <= 30; ++second) {
    // 2 tokens a second, and 10 a second from second 25 on.
    const int64_t tokens = 2 * second + std::max(0, second - 25) * 8;
    window.Add(start + std::chrono::seconds(second), Generated(tokens));
    if (second == 4) {
      EXPECT_EQ(window.Read().window_seconds, 4);
      EXPECT_EQ(window.Read().work.num_generated_tokens, 8);
    }
  }
  const RecentWork recent = window.Read();
  EXPECT_EQ(recent.window_seconds, 10);
  EXPECT_EQ(recent.work.num_generated_tokens, 5 * 2 + 5 * 10);
  EXPECT_EQ(recent.work.step_seconds, 15);
}

}  // namespace
}  // namespace gatehouse
