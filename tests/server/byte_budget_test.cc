#include "server/byte_budget.h"

#include <gtest/gtest.h>

namespace gatehouse {
namespace {

TEST(ByteBudgetTest, GivesUpToItsLimitAndAgainWhatCameBack) {
  ByteBudget budget(100);
  EXPECT_FALSE(budget.Take(101));
  EXPECT_TRUE(budget.Take(60));
  EXPECT_FALSE(budget.Take(41));
  EXPECT_TRUE(budget.Take(40));
  EXPECT_FALSE(budget.Take(1));
  budget.Give(60);
  EXPECT_TRUE(budget.Take(59));
  EXPECT_FALSE(budget.Take(2));
}

}  // namespace
}  // namespace gatehouse
