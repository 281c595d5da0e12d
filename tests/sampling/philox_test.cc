#include "engine/sampling/philox.h"

#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatehouse {
namespace {

using ::testing::ElementsAre;

// kat_vectors of Random123, "philox4x32 10".
TEST(Philox4x32Test, AgreesWithThePublishedVectors) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u));
  EXPECT_THAT(Philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
              ElementsAre(0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu));
  EXPECT_THAT(
      Philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}),
      ElementsAre(0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u));
}

TEST(UniformAtTest, LiesInTheUnitIntervalWithTheRightMeanAndSpread) {
  constexpr int kDraws = 100000;
  double sum = 0, sum_of_squares = 0;
  for (uint64_t i = 0; i < kDraws; ++i) {
    const double u = UniformAt(42, i);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
    sum_of_squares += u * u;
  }
  // Five standard errors: 5 sqrt(1/12/n) and 5 sqrt(4/45/n).
  EXPECT_NEAR(sum / kDraws, 0.5, 0.0046);
  EXPECT_NEAR(sum_of_squares / kDraws, 1.0 / 3, 0.0048);
}

TEST(UniformAtTest, UsesEveryBitOfSeedAndIndex) {
  std::set<double> draws = {UniformAt(0, 0)};
  for (int bit = 0; bit < 64; ++bit) {
    draws.insert(UniformAt(uint64_t{1} << bit, 0));
    draws.insert(UniformAt(0, uint64_t{1} << bit));
  }
  EXPECT_EQ(draws.size(), 129u);
}

}  // namespace
}  // namespace gatehouse
