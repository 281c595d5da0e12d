#include "server/cpu_count.h"

#include <gtest/gtest.h>

namespace gatehouse {
namespace {

TEST(QuotaCpusTest, RoundsAQuotaDownToWholeCpusButNeverToNone) {
  EXPECT_EQ(QuotaCpus("200000 100000"), 2);
  EXPECT_EQ(QuotaCpus("399999 100000"), 3);
  EXPECT_EQ(QuotaCpus("50000 100000"), 1);
}

TEST(QuotaCpusTest, TakesAnythingElseForNoLimit) {
  for (const char* text : {"max 100000", "", "-1 100000", "100000", "100000 0", "x y"}) {
    EXPECT_EQ(QuotaCpus(text), 0) << text;
  }
}

TEST(UsableCpusTest, IsAtLeastOne) { EXPECT_GE(UsableCpus(), 1); }

}  // namespace
}  // namespace gatehouse
