#include "engine/lab/route_gate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <utility>

#include "engine/moe/gate.h"
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

const SharedRecipe kRecipes[] = {
    {"softmax", RouteScore::kSoftmax, {.top_k = 3}},
    {"renormalised", RouteScore::kSoftmax, {.top_k = 3, .renormalise = true, .scale = 2.5f}},
    {"of the chosen", RouteScore::kTopkSoftmax, {.score = GateScore::kSoftmaxOfChosen, .top_k = 4}},
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

// Case files and served models must mean the same by a recipe.
TEST(ScoreRowsTest, ChoosesAndWeighsAsTheBackEndsDo) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  ReferenceBackend backend;
  for (const SharedRecipe& shared : kRecipes) {
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

// The same with everything that bounds decide by: all ranks, P, weights and affinities, from hidden
// rows on.
TEST(ScoreRowsTest, RanksAndScoresAsTheServedGateDoes) {
  constexpr int kHidden = 20;
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  ReferenceBackend backend;
  for (const SharedRecipe& shared : kRecipes) {
    for (const auto& [affinity, route_affinity] :
         {std::pair(Affinity::kGate, RouteAffinity::kGate),
          std::pair(Affinity::kShare, RouteAffinity::kShare),
          std::pair(Affinity::kCosine, RouteAffinity::kCosine)}) {
      SCOPED_TRACE(testing::Message() << shared.name << ", " << static_cast<int>(affinity));
      RouteGateRecipe recipe = ToRouteRecipe(shared, kExperts);
      recipe.input = RouteInput::kHidden;
      recipe.affinity = route_affinity;
      std::vector<float> router(kExperts * kHidden), x(kRows * kHidden);
      for (float& w : router) w = 0.3f * normal(random);
      std::fill_n(router.begin() + 5 * kHidden, kHidden, 0.0f);  // |w| = 0: cosine 0
      for (float& value : x) value = normal(random);
      for (int e = 0; e < kExperts; ++e) {
        recipe.logit_bias.push_back(0.2f * normal(random));
        if (shared.choice_bias) recipe.choice_bias.push_back(0.1f * normal(random));
        recipe.gate_rows.emplace_back(router.begin() + e * kHidden,
                                      router.begin() + (e + 1) * kHidden);
      }
      std::vector<RouteGateRow> rows;
      for (int row = 0; row < kRows; ++row) {
        rows.push_back({.numbers = std::span(x).subspan(row * kHidden, kHidden)});
      }
      const absl::StatusOr<GateScores> expected = ScoreRows(recipe, rows);
      ASSERT_TRUE(expected.ok()) << expected.status();

      GateWeights weights;
      const WeightView view{.data = router.data(), .num_rows = kExperts, .num_cols = kHidden};
      weights.router = *backend.PackMatrix({&view, 1}, WeightFormat::kF32);
      for (const std::vector<float>& w : recipe.gate_rows) {
        const double squares = std::inner_product(w.begin(), w.end(), w.begin(), 0.0);
        weights.row_norms.push_back(static_cast<float>(std::sqrt(squares)));
      }
      const auto upload = [&](const std::vector<float>& values) {
        Buffer buffer = *backend.Allocate(values.size() * sizeof(float));
        backend.CopyFromHost(buffer.as<float>(), values.data(), values.size() * sizeof(float));
        return buffer;
      };
      weights.logit_bias = upload(recipe.logit_bias);
      if (shared.choice_bias) weights.choice_bias = upload(recipe.choice_bias);
      const Gate gate(shared.served, std::move(weights));
      std::vector<float> logits(kRows * kExperts);
      std::vector<uint8_t> failed(kRows);
      const std::vector<Affinity> affinities(kRows, affinity);
      const GateScores scores =
          gate.Score(backend, {x.data(), kRows, kHidden}, {logits.data(), kRows, kExperts},
                     {.num_ranked = kExperts, .affinities = affinities}, failed);
      EXPECT_EQ(scores.ranked_ids, expected->ranked_ids);
      EXPECT_EQ(scores.num_chosen, expected->num_chosen);
      ASSERT_EQ(scores.gate.size(), expected->gate.size());
      for (size_t i = 0; i < scores.gate.size(); ++i) {
        if (scores.ranked_ids[i] < 0) continue;
        ASSERT_NEAR(scores.gate[i], expected->gate[i], 1e-5 * expected->gate[i] + 1e-7) << i;
        ASSERT_NEAR(scores.weight[i], expected->weight[i], 1e-5 * expected->weight[i] + 1e-7) << i;
        ASSERT_NEAR(scores.affinity[i], expected->affinity[i], 2e-6) << i;
      }
    }
  }
}

// Its numbers are finite, its norm is not, and no cosine is 0 for that.
TEST(ScoreRowsTest, ARowWhoseNormOverflowsFailsWhereCosinesAreAskedFor) {
  RouteGateRecipe recipe{
      .num_experts = 2, .top_k = 1, .input = RouteInput::kHidden, .score = RouteScore::kSoftmax};
  recipe.gate_rows = {{1e-20f, 0}, {0, 1e-20f}};
  const std::vector<float> huge = {1e30f, 1e20f}, fine = {1, 2};
  const std::vector<RouteGateRow> rows = {{.numbers = huge}, {.numbers = fine}};
  for (const auto& [affinity, failed] :
       {std::pair(RouteAffinity::kGate, 0), std::pair(RouteAffinity::kCosine, 1)}) {
    recipe.affinity = affinity;
    const absl::StatusOr<GateScores> scores = ScoreRows(recipe, rows);
    ASSERT_TRUE(scores.ok()) << scores.status();
    EXPECT_EQ(scores->row_failed[0], failed);
    EXPECT_EQ(scores->row_failed[1], 0);
  }
}

}  // namespace
}  // namespace gatehouse
