// The definition of int8 and int4 by cases worked by hand.
#include "kernels/quantise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "tests/kernels/op_cases.h"

namespace gatehouse {
namespace {

// 254 / 127 = 2 is a bf16 value: nothing is lost but halves, which go to the even neighbour.
TEST(QuantiseWeightsTest, Int8RoundsToNearestEvenWithTheScaleOfTheLargestMagnitude) {
  const float values[kQuantGroup] = {254, -254, 1, 3, -1, -3, 5, 2.5f, 0};
  const WeightGroup group = QuantiseWeights(WeightFormat::kInt8, values);
  EXPECT_EQ(BF16ToF32(group.scale), 2);
  const uint8_t expected[] = {255, 1, 128, 130, 128, 126, 130, 129, 128, 128};
  for (int i = 0; i < 10; ++i) EXPECT_EQ(group.codes[i], expected[i]) << i;
  EXPECT_EQ(WeightValue(WeightFormat::kInt8, group.scale, group.codes[1]), -254);
}

// The extreme takes code 0 whatever its sign, and code 15 reaches 7/8 of it on the other side.
TEST(QuantiseWeightsTest, Int4GivesTheExtremeCodeZero) {
  for (const float sign : {1.0f, -1.0f}) {
    const float values[kQuantGroup] = {8 * sign, -8 * sign, -7 * sign, sign, 1.5f * sign, 0};
    const WeightGroup group = QuantiseWeights(WeightFormat::kInt4, values);
    EXPECT_EQ(BF16ToF32(group.scale), -sign);
    const uint8_t expected[] = {0, 15, 15, 7, 6, 8, 8};
    for (int i = 0; i < 7; ++i) EXPECT_EQ(group.codes[i], expected[i]) << i;
    EXPECT_EQ(WeightValue(WeightFormat::kInt4, group.scale, group.codes[0]), 8 * sign);
    EXPECT_EQ(WeightValue(WeightFormat::kInt4, group.scale, group.codes[2]), -7 * sign);
  }
}

// 1 / 127 = 0x3c010204 in f32: bf16 0x3c01 is below it, 0x3c02 is the next away from zero.
TEST(QuantiseWeightsTest, RoundsTheScaleAwayFromZero) {
  const float one[kQuantGroup] = {1};
  EXPECT_EQ(QuantiseWeights(WeightFormat::kInt8, one).scale, 0x3c02);
  // -(1 + 2^-8) / 8, half way between bf16 values: from -0.125 to -0.126.
  const float more[kQuantGroup] = {1 + 0x1p-8f};
  EXPECT_EQ(QuantiseWeights(WeightFormat::kInt4, more).scale, 0xbe01);
}

TEST(QuantiseWeightsTest, ZerosAndTinyAndHugeWeightsStayFinite) {
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    for (const float value :
         {0.0f, std::numeric_limits<float>::denorm_min(), 0x1p-110f, 0x1p-95f, 1e38f}) {
      const float values[kQuantGroup] = {value, -value};
      const WeightGroup group = QuantiseWeights(format, values);
      const float back = WeightValue(format, group.scale, group.codes[0]);
      ASSERT_TRUE(std::isfinite(back)) << value;
      EXPECT_NEAR(back, value, std::max(value / 127, kLeastQuantScale));
      EXPECT_EQ(WeightValue(format, group.scale, group.codes[2]), 0);
    }
  }
}

// The published error of these formats on normal weights: 0.547 % and 8.61 %; activations 0.535 %.
TEST(QuantiseTest, LosesWhatTheFormatsLose) {
  constexpr int kGroups = 20000;
  double weight_error[2] = {}, activation_error = 0, total = 0;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (int g = 0; g < kGroups; ++g) {
    float values[kQuantGroup];
    for (float& value : values) value = normal(random);
    const WeightGroup int8 = QuantiseWeights(WeightFormat::kInt8, values);
    const WeightGroup int4 = QuantiseWeights(WeightFormat::kInt4, values);
    const ActivationGroup activations = QuantiseActivations(values);
    for (int i = 0; i < kQuantGroup; ++i) {
      const double x = values[i];
      total += x * x;
      weight_error[0] +=
          std::pow(WeightValue(WeightFormat::kInt8, int8.scale, int8.codes[i]) - x, 2);
      weight_error[1] +=
          std::pow(WeightValue(WeightFormat::kInt4, int4.scale, int4.codes[i]) - x, 2);
      activation_error += std::pow(double{activations.scale} * activations.codes[i] - x, 2);
    }
  }
  EXPECT_NEAR(std::sqrt(weight_error[0] / total), 0.00547, 0.0001);
  EXPECT_NEAR(std::sqrt(weight_error[1] / total), 0.0861, 0.001);
  EXPECT_NEAR(std::sqrt(activation_error / total), 0.00535, 0.0001);
}

TEST(QuantiseActivationsTest, RoundsToNearestEvenOfTheLargestMagnitude) {
  const float values[kQuantGroup] = {-127, 127, 0.5f, 1.5f, -2.5f, 0};
  const ActivationGroup group = QuantiseActivations(values);
  EXPECT_EQ(group.scale, 1);
  const int8_t expected[] = {-127, 127, 0, 2, -2, 0};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(group.codes[i], expected[i]) << i;
}

TEST(QuantiseActivationsTest, AGroupThatIsNotFiniteHasScaleNanAndOneOfNothingHasScaleZero) {
  for (const float bad : {INFINITY, -INFINITY, NAN}) {
    const float values[kQuantGroup] = {1, 2, bad, 3};
    const ActivationGroup group = QuantiseActivations(values);
    EXPECT_TRUE(std::isnan(group.scale));
    EXPECT_THAT(group.codes, testing::Each(0));
  }
  const float nothing[kQuantGroup] = {0x1p-101f, -0.0f};
  EXPECT_EQ(QuantiseActivations(nothing).scale, 0);
  EXPECT_THAT(QuantiseActivations(nothing).codes, testing::Each(0));
}

}  // namespace
}  // namespace gatehouse
