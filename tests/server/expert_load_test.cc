#include "server/expert_load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gatehouse {
namespace {

using ::testing::ElementsAre;

constexpr TimePoint kStart(std::chrono::hours(1));

TEST(ExpertLoadTest, AddsUpByLayerAndExpertAndSaysHowManyWereActive) {
  ExpertLoad load({1, 3}, 3);
  EXPECT_EQ(
      load.Add({{.layer = 1, .expert_tokens = {2, 0, 1}}, {.layer = 3, .expert_tokens = {0, 0, 5}}},
               kStart),
      3);
  EXPECT_EQ(load.Add({{.layer = 1, .expert_tokens = {1, 0, 0}}}, kStart), 1);
  const std::vector<LayerLoadCounts> counts = load.Read();
  ASSERT_EQ(counts.size(), 2u);
  EXPECT_EQ(counts[0].layer, 1);
  EXPECT_THAT(counts[0].expert_tokens, ElementsAre(3, 0, 1));
  EXPECT_EQ(counts[1].layer, 3);
  EXPECT_THAT(counts[1].expert_tokens, ElementsAre(0, 0, 5));
  EXPECT_EQ(counts[1].imbalance, 3) << "all of three experts' tokens at one";
}

TEST(ExpertLoadTest, KeepsTheLastBoundsAndAddsUpWhatTheyDid) {
  ExpertLoad load({0}, 2);
  LayerLoad bounded{.layer = 0, .expert_tokens = {3, 1}};
  bounded.reports[static_cast<int>(TokenMode::kShared)] = {
      .assignments = 5, .kept = 3, .rerouted = 1, .dropped = 1};
  bounded.bounds = {.expert_rerouted = {1, 0},
                    .expert_dropped = {1, 0},
                    .expert_received = {0, 1},
                    .rerouted = {0, 0, 1},
                    .dropped = {0, 1},
                    .expert_capacity = {3, kNoBound},
                    .causes = {1, 1},
                    .pressure = 2,
                    .device_usage = 0.5,
                    .device_budgets = {4, 4},
                    .device_loads = {1, 2}};
  load.Add({bounded}, kStart);
  EXPECT_TRUE(load.Read().at(0).expert_capacity == (std::vector<int64_t>{3, kNoBound}));
  bounded.bounds.expert_capacity = {4, 4};
  bounded.bounds.expert_dropped = {0, 0};
  bounded.bounds.device_budgets = {6};  // of another policy
  bounded.bounds.device_loads = {5};
  load.Add({bounded}, kStart);
  load.Add({{.layer = 0, .expert_tokens = {1, 1}}}, kStart);  // exact: bounds stay as they were
  const LayerLoadCounts counts = load.Read().at(0);
  EXPECT_THAT(counts.expert_rerouted, ElementsAre(2, 0));
  EXPECT_THAT(counts.expert_dropped, ElementsAre(1, 0));
  EXPECT_THAT(counts.expert_capacity, ElementsAre(4, 4));
  EXPECT_THAT(counts.expert_received, ElementsAre(0, 2));
  EXPECT_THAT(counts.rerouted, ElementsAre(0, 0, 2, 0, 0));
  EXPECT_THAT(counts.dropped, ElementsAre(0, 2, 0, 0, 0));
  EXPECT_THAT(counts.causes, ElementsAre(2, 2, 0, 0, 0, 0, 0, 0));
  EXPECT_THAT(counts.device_budgets, ElementsAre(10, 4));
  EXPECT_THAT(counts.device_loads, ElementsAre(6, 2));
  EXPECT_EQ(counts.pressure, 4);
  EXPECT_EQ(counts.device_usage, 0.5);
  EXPECT_EQ(counts.reports[static_cast<int>(TokenMode::kShared)].rerouted, 2);
}

TEST(ExpertLoadTest, ALayerWithoutExpertsIsLeftOut) {
  ExpertLoad load({1}, 2);
  EXPECT_EQ(
      load.Add({{.layer = 0, .expert_tokens = {7, 7}}, {.layer = 9, .expert_tokens = {1}}}, kStart),
      0);
  EXPECT_THAT(load.Read().at(0).expert_tokens, ElementsAre(0, 0));
}

}  // namespace
}  // namespace gatehouse
