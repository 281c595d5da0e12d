#include "kernels/cpu/work_split.h"

#include <gtest/gtest.h>

namespace gatehouse::cpu {
namespace {

TEST(WorkSplitTest, PartsFollowEachOtherAndDifferByAtMostOne) {
  for (const int64_t total : {0, 1, 5, 48, 1000}) {
    for (const int64_t count : {1, 2, 3, 7, 60}) {
      int64_t next = 0;
      for (int64_t i = 0; i < count; ++i) {
        const Part part = NthPart(total, count, i);
        EXPECT_EQ(part.begin, next);
        EXPECT_GE(part.end - part.begin, total / count);
        EXPECT_LE(part.end - part.begin, (total + count - 1) / count);
        next = part.end;
      }
      EXPECT_EQ(next, total);
    }
  }
}

TEST(WorkSplitTest, RangesAreWholeTilesAndNeverEmpty) {
  for (const int64_t num_inputs : {1, 100, 1024, 4096, 1'000'000}) {
    EXPECT_GE(MaxRangeRows(num_inputs), 48);
    EXPECT_EQ(MaxRangeRows(num_inputs) % 48, 0);
  }
  EXPECT_EQ(MaxRangeRows(1024), 96);
}

TEST(WorkSplitTest, UnitsHoldOneToFourPanelsAndLeaveWorkForEveryThread) {
  EXPECT_EQ(PanelsPerUnit(1, 16), 1);
  EXPECT_EQ(PanelsPerUnit(32, 2), 2);
  EXPECT_EQ(PanelsPerUnit(1536, 2), 4);
}

}  // namespace
}  // namespace gatehouse::cpu
