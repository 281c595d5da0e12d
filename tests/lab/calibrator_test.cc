#include "engine/lab/calibrator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "engine/lab/model_facts.h"

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatEq;

constexpr int kExperts = 4;

// Rows of two choices: expert 0 always first, the second and its P as given; cosines are P less
// 0.5.
GateScores Scores(const std::vector<std::pair<int, float>>& second) {
  GateScores scores{.num_rows = static_cast<int>(second.size()),
                    .num_experts = kExperts,
                    .top_k = 2,
                    .num_ranked = kExperts};
  for (const auto& [expert, p] : second) {
    scores.num_chosen.push_back(2);
    scores.row_failed.push_back(0);
    std::vector<int32_t> ids = {0, expert};
    for (int e = 1; e < kExperts; ++e) {
      if (e != expert) ids.push_back(e);
    }
    const std::vector<float> gate = {0.5f, p, 0.05f, 0.01f};
    for (int i = 0; i < kExperts; ++i) {
      scores.ranked_ids.push_back(ids[i]);
      scores.gate.push_back(gate[i]);
      scores.affinity.push_back(gate[i] - 0.5f);
    }
  }
  return scores;
}

std::vector<CalibratedLayer> LayersOf(Affinity affinity, double drop_share, bool balance) {
  AffinityCollector collector(affinity);
  collector.OnLayer(0, Scores({{1, 0.4f}, {1, 0.1f}, {2, 0.3f}, {1, 0.2f}}), {});
  collector.OnLayer(0, Scores({{3, 0.35f}, {1, 0.25f}}), {});
  return collector.Layers({.drop_share = drop_share, .balance = balance});
}

TEST(AffinityCollectorTest, OneThresholdDropsTheWantedShareOfPairs) {
  // 12 pairs; a quarter are three, of the second choices: P 0.1, 0.2, 0.25. 0.3 stays.
  EXPECT_THAT(LayersOf(Affinity::kGate, 0.25, false)[0].thresholds,
              ElementsAre(.3f, .3f, .3f, .3f));
  EXPECT_THAT(LayersOf(Affinity::kShare, 0.25, false)[0].thresholds[0], FloatEq(0.3f / 0.8f));
  EXPECT_THAT(LayersOf(Affinity::kCosine, 0.25, false)[0].thresholds[0], FloatEq(-0.2f));
}

TEST(AffinityCollectorTest, DroppingNothingIsBelowAllAffinities) {
  EXPECT_LT(LayersOf(Affinity::kCosine, 0, false)[0].thresholds[0], -1e30f);
}

TEST(AffinityCollectorTest, BalancedThresholdsSpareExpertsBelowTheirShare) {
  // Places 12 / 4 * (1 - 1/3) = 2: expert 1 has four pairs and keeps two, 2 and 3 have one each;
  // first choices are never dropped.
  const std::vector<float> thresholds = LayersOf(Affinity::kGate, 1.0 / 3, true)[0].thresholds;
  EXPECT_LT(thresholds[0], -1e30f);
  EXPECT_FLOAT_EQ(thresholds[1], 0.25f);
  EXPECT_LT(thresholds[2], -1e30f);
}

TEST(AffinityCollectorTest, RandomDirectionsHaveTheDimensionTheyCameFrom) {
  // The cosine of a random direction in d dimensions has variance 1 / d.
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.1f, 1 / std::sqrt(50.0f));
  AffinityCollector collector(Affinity::kGate);
  for (int i = 0; i < 2000; ++i) {
    GateScores scores = Scores({{1, 0.2f}});
    for (float& a : scores.affinity) a = normal(random);
    collector.OnLayer(0, scores, {});
  }
  EXPECT_NEAR(collector.Layers({})[0].effective_dim, 50, 3);
  // The tenth percentile of that distribution, less its mean.
  EXPECT_NEAR(collector.Layers({})[0].delta, -1.2816 / std::sqrt(50.0), 0.01);
}

TEST(ProposeExemptionsTest, OnlyWhatStandsOut) {
  std::vector<CalibratedLayer> layers(5);
  const double costs[] = {0.0128, 0.0009, 0.0003, 0.0002, 0.0011};
  for (int i = 0; i < 5; ++i) layers[i].bound_cost = costs[i];
  ProposeExemptions(layers);
  EXPECT_TRUE(layers[0].exempt);
  for (int i = 1; i < 5; ++i) EXPECT_FALSE(layers[i].exempt) << i;
  for (CalibratedLayer& layer : layers) layer.bound_cost = 0.01;  // all alike
  ProposeExemptions(layers);
  for (const CalibratedLayer& layer : layers) EXPECT_FALSE(layer.exempt);
}

TEST(CalibrateTest, ACalibrationOfAModelIsReadBackAndFitsIt) {
  auto evaluator =
      Evaluator::Create({.model_dir = GATEHOUSE_SOURCE_DIR "/tests/golden/locmoe_grap_f32",
                         .window = 32,
                         .batch_windows = 4});
  ASSERT_TRUE(evaluator.ok()) << evaluator.status();
  EvalTokens tokens{.window = 32};
  for (int i = 0; i < 12 * 33; ++i) tokens.ids.push_back(1 + (i * i * 7 + i) % 516);
  const auto calibration = Calibrate(**evaluator, tokens, {.drop_share = 0.3});
  ASSERT_TRUE(calibration.ok()) << calibration.status();
  const auto read = ParseCalibration(FormatCalibration(*calibration), "c.json");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(CheckCalibration(*read, CalibratedModelOf((*evaluator)->parts()), "c.json").ok());
  EXPECT_EQ(read->num_tokens, 12 * 32);
  EXPECT_EQ(read->layers.size(), 2u);  // of three one is dense
  for (const MeasuredQuality& cell : read->quality) {
    if (cell.policy != "threshold") continue;
    int num_exempt = 0;
    for (const CalibratedLayer& layer : read->layers) num_exempt += layer.exempt ? 1 : 0;
    EXPECT_NEAR(cell.drop_share, 0.3 * (2 - num_exempt) / 2, 0.01);
  }
}

}  // namespace
}  // namespace gatehouse
