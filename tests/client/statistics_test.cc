#include "client/statistics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace gatehouse {
namespace {

TEST(LatencyHistogramTest, PercentilesAreWithinABucketOfTheSortedValues) {
  std::mt19937_64 random(7);
  std::lognormal_distribution<double> latency(-5, 2);  // 0.1 ms to seconds, a long tail
  std::vector<double> values(10'000);
  LatencyHistogram histogram;
  for (double& value : values) {
    value = latency(random);
    histogram.Record(value);
  }
  std::sort(values.begin(), values.end());
  for (const double percent : {0.1, 1.0, 50.0, 90.0, 99.0, 99.9}) {
    const double exact = values[static_cast<size_t>(std::ceil(percent / 100 * 10'000)) - 1];
    EXPECT_NEAR(histogram.Percentile(percent), exact, exact * 0.006) << percent;
  }
  EXPECT_EQ(histogram.Percentile(0), values.front());
  EXPECT_EQ(histogram.Percentile(100), values.back());
  EXPECT_EQ(histogram.min(), values.front());
  EXPECT_EQ(histogram.max(), values.back());
}

TEST(LatencyHistogramTest, RankIsTheNearestAbove) {
  LatencyHistogram histogram;
  histogram.Record(1, 99);
  histogram.Record(10);
  EXPECT_EQ(histogram.count(), 100);
  EXPECT_DOUBLE_EQ(histogram.mean(), 1.09);
  EXPECT_NEAR(histogram.Percentile(99), 1, 0.006);
  EXPECT_NEAR(histogram.Percentile(99.1), 10, 0.06);
}

TEST(LatencyHistogramTest, MergingEqualsRecordingInOne) {
  LatencyHistogram a;
  LatencyHistogram b;
  LatencyHistogram both;
  for (int i = 1; i <= 1000; ++i) {
    (i % 3 == 0 ? a : b).Record(i * 1e-3);
    both.Record(i * 1e-3);
  }
  a.Merge(b);
  a.Merge(LatencyHistogram());
  EXPECT_EQ(a.count(), both.count());
  EXPECT_EQ(a.min(), both.min());
  EXPECT_EQ(a.max(), both.max());
  EXPECT_NEAR(a.mean(), both.mean(), 1e-12);
  for (int percent = 0; percent <= 100; ++percent) {
    EXPECT_EQ(a.Percentile(percent), both.Percentile(percent));
  }
}

TEST(LatencyHistogramTest, TakesValuesOutsideItsRange) {
  LatencyHistogram histogram;
  EXPECT_EQ(histogram.Percentile(50), 0);
  histogram.Record(-1);
  histogram.Record(0);
  histogram.Record(1e9);
  histogram.Record(5, 0);  // no value at all
  EXPECT_EQ(histogram.count(), 3);
  EXPECT_EQ(histogram.min(), 0);
  EXPECT_EQ(histogram.max(), 1e9);
  EXPECT_GT(histogram.Percentile(100), 1e5);  // the last bucket's
}

TEST(MedianTest, IsTheMiddleOrTheMeanOfTheTwoThere) {
  EXPECT_EQ(Median({}), 0);
  EXPECT_EQ(Median({3}), 3);
  EXPECT_EQ(Median({9, 1, 5}), 5);
  EXPECT_EQ(Median({4, 1, 3, 2}), 2.5);
}

TEST(MedianAbsoluteDeviationTest, IgnoresOneOutlier) {
  EXPECT_EQ(MedianAbsoluteDeviation({1, 1, 2, 2, 4, 6, 9}), 1);
  EXPECT_EQ(MedianAbsoluteDeviation({10, 10, 10, 10, 1000}), 0);
}

}  // namespace
}  // namespace gatehouse
