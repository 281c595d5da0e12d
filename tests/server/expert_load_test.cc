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

TEST(ExpertLoadTest, ALayerWithoutExpertsIsLeftOut) {
  ExpertLoad load({1}, 2);
  EXPECT_EQ(
      load.Add({{.layer = 0, .expert_tokens = {7, 7}}, {.layer = 9, .expert_tokens = {1}}}, kStart),
      0);
  EXPECT_THAT(load.Read().at(0).expert_tokens, ElementsAre(0, 0));
}

}  // namespace
}  // namespace gatehouse
