#include "engine/moe/load_forecast.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace gatehouse {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Counts = std::vector<int64_t>;

TEST(LoadForecastTest, WhatWasHalfALifeAgoCountsHalf) {
  LoadForecast forecast = *LoadForecast::Make(2, 2, 100);
  EXPECT_THAT(forecast.Shares(0), ElementsAre(0, 0));
  ASSERT_TRUE(forecast.Add(0, Counts{100, 0}).ok());
  EXPECT_THAT(forecast.Shares(0), ElementsAre(1, 0));
  EXPECT_DOUBLE_EQ(forecast.num_pairs(0), 100);
  ASSERT_TRUE(forecast.Add(0, Counts{0, 100}).ok());
  EXPECT_THAT(forecast.Shares(0), ElementsAre(50.0 / 150, 100.0 / 150));
  EXPECT_DOUBLE_EQ(forecast.num_pairs(0), 150);
  EXPECT_THAT(forecast.Shares(1), ElementsAre(0, 0));  // a layer knows itself alone
}

// Steps of 4 pairs or of 400: after as many pairs of a new kind as much of the old is forgotten.
TEST(LoadForecastTest, ForgetsByPairsAndNotBySteps) {
  LoadForecast small = *LoadForecast::Make(1, 2, 500), large = small;
  ASSERT_TRUE(small.Add(0, Counts{400, 0}).ok());
  ASSERT_TRUE(large.Add(0, Counts{400, 0}).ok());
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(small.Add(0, Counts{0, 4}).ok());
  ASSERT_TRUE(large.Add(0, Counts{0, 400}).ok());
  // What was in a step does not fade within it: hence not equal, but near.
  const double old_weight = 400 * std::exp2(-0.8);
  EXPECT_THAT(large.Shares(0)[0], DoubleNear(old_weight / (old_weight + 400), 1e-12));
  EXPECT_THAT(small.Shares(0)[0], DoubleNear(large.Shares(0)[0], 0.1));
}

TEST(LoadForecastTest, ManyStepsComeToTheirMean) {
  LoadForecast forecast = *LoadForecast::Make(1, 3, 1000);
  for (int i = 0; i < 5000; ++i) {
    ASSERT_TRUE(forecast.Add(0, i % 2 == 0 ? Counts{6, 0, 0} : Counts{0, 2, 0}).ok());
  }
  EXPECT_THAT(forecast.Shares(0), ElementsAre(DoubleNear(0.75, 0.01), DoubleNear(0.25, 0.01), 0));
  EXPECT_THAT(forecast.num_pairs(0), DoubleNear(1000 / std::log(2), 10));
}

TEST(LoadForecastTest, RefusesWhatCannotBe) {
  EXPECT_THAT(LoadForecast::Make(0, 4).status().message(), HasSubstr("got 0 layers of 4 experts"));
  EXPECT_THAT(LoadForecast::Make(1, 0).status().message(), HasSubstr("got 1 layers of 0 experts"));
  for (const double half_life : {0.5, -1.0, HUGE_VAL, std::nan("")}) {
    EXPECT_THAT(LoadForecast::Make(1, 1, half_life).status().message(),
                HasSubstr("half-life: got"));
  }
  LoadForecast forecast = *LoadForecast::Make(2, 3);
  EXPECT_THAT(forecast.Add(2, Counts{1, 1, 1}).message(),
              HasSubstr("layer: got 2, expected 0 to 1"));
  EXPECT_THAT(forecast.Add(-1, Counts{1, 1, 1}).message(), HasSubstr("layer: got -1"));
  EXPECT_THAT(forecast.Add(0, Counts{1, 1}).message(), HasSubstr("of 2 experts, expected 3"));
  EXPECT_THAT(forecast.Add(0, Counts{1, -1, 1}).message(), HasSubstr("expert 1: got -1"));
  EXPECT_THAT(forecast.Add(0, Counts{1, 1, INT64_MAX}).message(), HasSubstr("expert 2: got 922"));
  EXPECT_EQ(forecast.num_pairs(0), 0);
  EXPECT_THAT(forecast.Shares(0), ElementsAre(0, 0, 0));
}

}  // namespace
}  // namespace gatehouse
