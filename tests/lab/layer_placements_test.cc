#include "engine/lab/layer_placements.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<double> kTwoDevices = {1, 1};

TEST(LayerPlacementsTest, EachLayerIsPlacedByItsOwnLoads) {
  const LayerLoads loads = {{8, 8, 1, 1}, {8, 1, 8, 1}};
  const auto place = [&](std::string_view name) {
    return *LayerPlacements::Make({.name = name}, kTwoDevices, loads);
  };
  for (int layer = 0; layer < 2; ++layer) {
    EXPECT_THAT(place("linear").layers()[layer].copy_devices, ElementsAre(0, 0, 1, 1));
    EXPECT_THAT(place("round-robin").layers()[layer].copy_devices, ElementsAre(0, 1, 0, 1));
  }
  for (const std::string_view name : {"eplb", "balanced"}) {
    const LayerPlacements placements = place(name);
    for (int layer = 0; layer < 2; ++layer) {
      const std::vector<double> of_layer(loads[layer].begin(), loads[layer].end());
      EXPECT_DOUBLE_EQ(PredictedImbalance(placements.layers()[layer], of_layer), 1);
    }
  }
}

TEST(LayerPlacementsTest, CopiesAndThroughputReachThePlacement) {
  const LayerPlacements placements =
      *LayerPlacements::Make({.name = "eplb", .num_replicas = 2}, {1, 2}, {{8, 4, 2, 1}});
  EXPECT_EQ(placements.layers()[0].num_copies(), 6);
  EXPECT_THAT(placements.layers()[0].throughput, ElementsAre(1, 2));
}

TEST(LayerPlacementsTest, RefusesWhatCannotBe) {
  const auto refusal = [](const PlacementChoice& choice) {
    return std::string(LayerPlacements::Make(choice, kTwoDevices, {{1, 1}}).status().message());
  };
  EXPECT_THAT(refusal({.name = "sideways"}), HasSubstr("got 'sideways', expected linear"));
  EXPECT_THAT(refusal({.name = "eplb", .num_replicas = 3}), HasSubstr("got 3, expected 0 to 2"));
}

// Experts 0 and 1 are wanted, then 2 and 3: each time they part at the next plan, and only then.
TEST(LayerPlacementsTest, ExpertsMoveAfterTheLoad) {
  LayerPlacements placements =
      *LayerPlacements::Make({.name = "rebalanced", .rebalance_steps = 3, .half_life_pairs = 30000},
                             kTwoDevices, {{1, 1, 1, 1}, {1, 1, 1, 1}});
  const LayerLoads before = {{8000, 8000, 1000, 1000}, {5000, 5000, 5000, 5000}};
  const LayerLoads after = {{1000, 8000, 8000, 1000}, {5000, 5000, 5000, 5000}};
  const auto imbalance = [&](const LayerLoads& loads) {
    return PredictedImbalance(placements.layers()[0],
                              std::vector<double>(loads[0].begin(), loads[0].end()));
  };
  for (int step = 0; step < 3; ++step) {
    EXPECT_NEAR(imbalance(before), 16000 / 9000.0, 1e-9);
    ASSERT_TRUE(placements.Add(before).ok());
  }
  EXPECT_NEAR(imbalance(before), 1, 1e-9);
  EXPECT_EQ(placements.num_rebalances(), 1);  // of layer 0 alone
  EXPECT_EQ(placements.num_moves(), 2);
  EXPECT_NEAR(placements.mean_predicted_gain(), 1 - 9.0 / 16, 1e-6);
  for (int step = 0; step < 9; ++step) ASSERT_TRUE(placements.Add(after).ok());
  EXPECT_NEAR(imbalance(after), 1, 1e-9);
  EXPECT_THAT(placements.layers()[1].copy_devices, ElementsAre(0, 0, 1, 1));
}

TEST(LayerPlacementsTest, WithoutAPlanNothingMoves) {
  LayerPlacements placements(RoundRobinPlacement(4, 2), 3);
  ASSERT_TRUE(placements.Add(LayerLoads(3, {100000, 0, 0, 0})).ok());
  EXPECT_EQ(placements.layers().size(), 3);
  EXPECT_THAT(placements.layers()[2].copy_devices, ElementsAre(0, 1, 0, 1));
  EXPECT_EQ(placements.num_rebalances(), 0);
}

}  // namespace
}  // namespace gatehouse
