#include "client/text_chart.h"

#include <gtest/gtest.h>

#include <limits>

namespace gatehouse {
namespace {

TEST(HorizontalBarTest, IsFilledToItsShare) {
  EXPECT_EQ(HorizontalBar(0, 4, Glyphs::kAscii), "----");
  EXPECT_EQ(HorizontalBar(0.5, 4, Glyphs::kAscii), "##--");
  EXPECT_EQ(HorizontalBar(1, 4, Glyphs::kUnicode), "████");
  EXPECT_EQ(HorizontalBar(7, 2, Glyphs::kAscii), "##");
  EXPECT_EQ(HorizontalBar(std::numeric_limits<double>::quiet_NaN(), 2, Glyphs::kAscii), "--");
}

TEST(ColumnBarsTest, ShowsEachValueBesideTheLargest) {
  EXPECT_EQ(ColumnBars({0, 1, 50, 100}, 4, Glyphs::kAscii), " .=@");
  EXPECT_EQ(ColumnBars({0, 1, 50, 100}, 4, Glyphs::kUnicode), " ▁▄█");
  EXPECT_EQ(ColumnBars({0, 0}, 2, Glyphs::kAscii), "  ");
  EXPECT_EQ(ColumnBars({}, 2, Glyphs::kAscii), "");
}

TEST(ColumnBarsTest, TakesTheRoomThatIsThere) {
  EXPECT_EQ(ColumnBars({1, 1}, 5, Glyphs::kAscii), "@ @ ");
  EXPECT_EQ(ColumnBars({1, 1}, 100, Glyphs::kAscii), "@@ @@ ");
}

TEST(ColumnBarsTest, ANarrowTerminalShowsTheLargestOfNeighbours) {
  EXPECT_EQ(ColumnBars({0, 0, 8, 0, 0, 4}, 3, Glyphs::kAscii), " @=");
  EXPECT_EQ(ColumnBars({9, 0, 0, 0, 0}, 2, Glyphs::kAscii), "@ ");
}

TEST(ClipTest, CutsBetweenCharacters) {
  EXPECT_EQ(Clip("a▁b", 2), "a▁");
  EXPECT_EQ(Clip("a▁b", 1), "a");
  EXPECT_EQ(Clip("ab", 5), "ab");
  EXPECT_EQ(Clip("ab", 0), "");
}

TEST(DescribeDurationTest, PicksAUnit) {
  EXPECT_EQ(DescribeDuration(0.524), "0.52 s");
  EXPECT_EQ(DescribeDuration(9.999), "10.0 s");
  EXPECT_EQ(DescribeDuration(59.96), "0 min 59 s");
  EXPECT_EQ(DescribeDuration(185), "3 min 05 s");
  EXPECT_EQ(DescribeDuration(2 * 3600 + 7 * 60), "2 h 07 min");
  EXPECT_EQ(DescribeDuration(3 * 86'400 + 4 * 3600), "3 d 04 h");
  EXPECT_EQ(DescribeDuration(-1), "?");
}

TEST(DescribeBytesTest, PicksAUnit) {
  EXPECT_EQ(DescribeBytes(512), "512 B");
  EXPECT_EQ(DescribeBytes(1.5e6), "1.5 MB");
  EXPECT_EQ(DescribeBytes(999'999), "1.0 MB");
  EXPECT_EQ(DescribeBytes(250e9), "250 GB");
}

}  // namespace
}  // namespace gatehouse
