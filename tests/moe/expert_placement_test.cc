#include "engine/moe/expert_placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gatehouse {
namespace {

using ::testing::ElementsAre;

TEST(LinearPlacementTest, NeighboursShareADevice) {
  const ExpertPlacement placement = LinearPlacement(6, 4);
  EXPECT_THAT(placement.copy_devices, ElementsAre(0, 0, 1, 2, 2, 3));
  EXPECT_THAT(placement.copy_begin, ElementsAre(0, 1, 2, 3, 4, 5, 6));
  EXPECT_THAT(placement.throughput, ElementsAre(1, 1, 1, 1));
}

TEST(RoundRobinPlacementTest, NeighboursPart) {
  const ExpertPlacement placement = RoundRobinPlacement(6, 4);
  EXPECT_EQ(placement.num_devices, 4);
  EXPECT_THAT(placement.copy_devices, ElementsAre(0, 1, 2, 3, 0, 1));
  EXPECT_EQ(placement.num_experts(), 6);
}

TEST(PlacementOfTest, HoldsCopies) {
  const ExpertPlacement placement = PlacementOf({{0, 2}, {1}}, {1, 2, 3});
  EXPECT_EQ(placement.num_devices, 3);
  EXPECT_EQ(placement.num_copies(), 3);
  EXPECT_THAT(placement.devices_of(0), ElementsAre(0, 2));
  EXPECT_THAT(placement.devices_of(1), ElementsAre(1));
}

// Device 0 has 6 / 2 = 3, device 1 3 + 5 = 8, at twice the speed 4. The mean is 11 / 3.
TEST(PredictedImbalanceTest, IsOfTheDeviceThatTakesLongest) {
  const ExpertPlacement placement = PlacementOf({{0, 1}, {1}}, {1, 2});
  EXPECT_DOUBLE_EQ(PredictedImbalance(placement, std::vector<double>{6, 5}), 4 / (11.0 / 3));
  EXPECT_DOUBLE_EQ(PredictedImbalance(placement, std::vector<double>{0, 0}), 1);
}

TEST(PredictedImbalanceTest, ADeviceWithoutExpertsCounts) {
  EXPECT_DOUBLE_EQ(PredictedImbalance(LinearPlacement(2, 4), std::vector<double>{1, 1}), 2);
}

TEST(PlacementAmongTest, WhatIsLostGoesToWhoHoldsLeast) {
  const ExpertPlacement all = PlacementOf({{0, 1}, {1}, {2}, {1, 2}, {1}}, {1, 2, 3});
  const std::vector<int> both = {0, 2};
  const ExpertPlacement left = PlacementAmong(all, both);
  EXPECT_EQ(left.num_devices, 3);
  EXPECT_EQ(left.throughput, all.throughput);
  EXPECT_THAT(left.devices_of(0), testing::ElementsAre(0));
  EXPECT_THAT(left.devices_of(1), testing::ElementsAre(0)) << "device 0 holds one, 2 holds two";
  EXPECT_THAT(left.devices_of(2), testing::ElementsAre(2));
  EXPECT_THAT(left.devices_of(3), testing::ElementsAre(2));
  EXPECT_THAT(left.devices_of(4), testing::ElementsAre(0)) << "the lowest of equals";
  const std::vector<int> everybody = {0, 1, 2};
  EXPECT_EQ(PlacementAmong(all, everybody).copy_devices, all.copy_devices);
}

}  // namespace
}  // namespace gatehouse
