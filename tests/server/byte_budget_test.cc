#include "server/byte_budget.h"

#include <gtest/gtest.h>

namespace gatehouse {
namespace {

TEST(ByteBudgetTest, GivesUpToItsLimitAndAgainWhatCameBack) {
  ByteBudget budget(100);
  EXPECT_EQ(budget.Take(101),
            absl::ResourceExhaustedError(
                "open calls hold 0 bytes of requests and 101 would join them, limit 100"));
  EXPECT_EQ(budget.Take(60), absl::OkStatus());
  EXPECT_TRUE(absl::IsResourceExhausted(budget.Take(41)));
  EXPECT_EQ(budget.Take(40), absl::OkStatus());
  EXPECT_TRUE(absl::IsResourceExhausted(budget.Take(1)));
  budget.Give(60);
  EXPECT_EQ(budget.Take(59), absl::OkStatus());
  EXPECT_TRUE(absl::IsResourceExhausted(budget.Take(2)));
}

}  // namespace
}  // namespace gatehouse
