#include "engine/lab/route_gate.h"

#include <gtest/gtest.h>

#include <random>

#include "kernels/backend.h"
#include "kernels/reference/reference_backend.h"

namespace gatehouse {
namespace {

struct SharedRecipe {
  const char* name;
  RouteScore score;
  GateRecipe served;
  bool choice_bias = false;
};

RouteGateRecipe ToRouteRecipe(const SharedRecipe& shared, int num_experts) {
  return {.num_experts = num_experts,
          .top_k = shared.served.top_k,
          .input = RouteInput::kLogits,
          .score = shared.score,
          .renormalise = shared.served.renormalise,
          .scale = shared.served.scale,
          .num_groups = shared.served.num_groups,
          .num_open_groups = shared.served.num_open_groups,
          .group_by_two_largest = shared.served.group_score == GroupScore::kSumOfTwoLargest};
}

// Case files and served models must mean the same by a recipe.
TEST(ScoreRowsTest, ChoosesAndWeighsAsTheBackEndsDo) {
  const SharedRecipe recipes[] = {
      {"softmax", RouteScore::kSoftmax, {.top_k = 3}},
      {"renormalised", RouteScore::kSoftmax, {.top_k = 3, .renormalise = true, .scale = 2.5f}},
      {"of the chosen",
       RouteScore::kTopkSoftmax,
       {.score = GateScore::kSoftmaxOfChosen, .top_k = 4}},
      {"sigmoid, two largest of a group",
       RouteScore::kSigmoid,
       {.score = GateScore::kSigmoid,
        .top_k = 4,
        .renormalise = true,
        .scale = 1.5f,
        .num_groups = 4,
        .num_open_groups = 2,
        .group_score = GroupScore::kSumOfTwoLargest},
       /*choice_bias=*/true},
      {"softmax, largest of a group",
       RouteScore::kSoftmax,
       {.top_k = 3, .num_groups = 3, .num_open_groups = 2}},
  };
  constexpr int kExperts = 12, kRows = 200;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  ReferenceBackend backend;
  for (const SharedRecipe& shared : recipes) {
    std::vector<float> logits(kRows * kExperts), bias(kExperts);
    for (float& z : logits) z = normal(random);
    for (float& b : bias) b = 0.1f * normal(random);
    RouteGateRecipe recipe = ToRouteRecipe(shared, kExperts);
    if (shared.choice_bias) recipe.choice_bias = bias;
    std::vector<RouteGateRow> rows;
    for (int row = 0; row < kRows; ++row) {
      rows.push_back({.numbers = std::span(logits).subspan(row * kExperts, kExperts)});
    }
    const absl::StatusOr<GateScores> scores = ScoreRows(recipe, rows);
    ASSERT_TRUE(scores.ok()) << scores.status();

    const int k = shared.served.top_k;
    std::vector<int32_t> ids(kRows * k);
    std::vector<float> weights(kRows * k);
    std::vector<uint8_t> failed(kRows);
    backend.GateTopK({.logits = {logits.data(), kRows, kExperts},
                      .recipe = shared.served,
                      .choice_bias = shared.choice_bias ? bias.data() : nullptr,
                      .expert_ids = {ids.data(), kRows, k},
                      .weights = {weights.data(), kRows, k},
                      .row_failed = failed});
    for (int row = 0; row < kRows; ++row) {
      ASSERT_EQ(scores->num_chosen[row], k);
      for (int slot = 0; slot < k; ++slot) {
        EXPECT_EQ(scores->ranked_ids[scores->At(row, slot)], ids[row * k + slot]) << shared.name;
        EXPECT_NEAR(scores->weight[scores->At(row, slot)], weights[row * k + slot], 1e-6)
            << shared.name;
      }
    }
  }
}

}  // namespace
}  // namespace gatehouse
