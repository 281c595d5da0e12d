#include "engine/scheduler/prefill_budget.h"

#include <limits>

#include "gtest/gtest.h"

namespace gatehouse {
namespace {

Duration Ms(double ms) { return std::chrono::nanoseconds(static_cast<int64_t>(ms * 1e6)); }

TEST(PrefillBudgetTest, StartsSmall) {
  EXPECT_EQ(PrefillBudget(250).max_tokens(), PrefillBudget::kFirstTokens);
}

TEST(PrefillBudgetTest, DividesTheTimeByThePriceOfAToken) {
  PrefillBudget budget(250);
  budget.Learn(/*num_prefill_tokens=*/100, /*num_decode_tokens=*/0, Ms(200));  // 2 ms each
  EXPECT_EQ(budget.max_tokens(), 125);
}

TEST(PrefillBudgetTest, DoesNotChargeThePromptForTheDecodesBesideIt) {
  PrefillBudget budget(250);
  budget.Learn(0, 32, Ms(50));
  budget.Learn(100, 32, Ms(250));
  EXPECT_EQ(budget.max_tokens(), 125);
}

TEST(PrefillBudgetTest, NeverFallsBelowTheLeastProgress) {
  PrefillBudget budget(1);
  budget.Learn(64, 0, Ms(64000));
  EXPECT_EQ(budget.max_tokens(), kMinPrefillTokens);
}

TEST(PrefillBudgetTest, IsBoundedWhenStepsCostNothing) {
  PrefillBudget budget(1e12);
  budget.Learn(64, 0, Ms(0));
  EXPECT_EQ(budget.max_tokens(), std::numeric_limits<int32_t>::max());
}

// A step costs 200 ms whatever it carries, and 0.1 ms a token: small chunks look dear, and the
// budget must not stay with them. At 500 tokens a step lasts 250 ms.
TEST(PrefillBudgetTest, GrowsOutOfSmallChunksOnAMachineWithAHighFixedCost) {
  PrefillBudget budget(250);
  for (int step = 0; step < 200; ++step) {
    const int32_t tokens = budget.max_tokens();
    budget.Learn(tokens, 0, Ms(200 + 0.1 * tokens));
  }
  EXPECT_NEAR(budget.max_tokens(), 500, 25);
}

}  // namespace
}  // namespace gatehouse
