#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/reference/reference_backend.h"
#include "tests/kernels/op_cases.h"

namespace gatehouse {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::Pointwise;

struct Chosen {
  std::vector<int32_t> expert_ids;
  std::vector<float> weights;
  std::vector<uint8_t> failed;
};

Chosen Choose(Backend& backend, std::vector<float> logits, int num_experts,
              const GateRecipe& recipe, const std::vector<float>& choice_bias = {}) {
  const int64_t num_rows = static_cast<int64_t>(logits.size()) / num_experts;
  const int top_k = recipe.top_k;
  Chosen chosen{std::vector<int32_t>(num_rows * top_k, -1), std::vector<float>(num_rows * top_k),
                std::vector<uint8_t>(num_rows)};
  backend.GateTopK({.logits = MatrixView<float>(logits.data(), num_rows, num_experts),
                    .recipe = recipe,
                    .choice_bias = choice_bias.empty() ? nullptr : choice_bias.data(),
                    .expert_ids = {chosen.expert_ids.data(), num_rows, top_k},
                    .weights = {chosen.weights.data(), num_rows, top_k},
                    .row_failed = chosen.failed});
  return chosen;
}

struct Ranked : Chosen {
  std::vector<float> gate;
  std::vector<float> mass;
};

Ranked RankExperts(Backend& backend, std::vector<float> logits, int num_experts,
                   const GateRecipe& recipe, int num_ranked,
                   const std::vector<float>& choice_bias = {}) {
  const int64_t num_rows = static_cast<int64_t>(logits.size()) / num_experts;
  Ranked ranked;
  ranked.expert_ids.assign(num_rows * num_ranked, -2);
  ranked.weights.assign(num_rows * num_ranked, NAN);
  ranked.gate.assign(num_rows * num_ranked, NAN);
  ranked.mass.assign(num_rows, NAN);
  ranked.failed.assign(num_rows, 0);
  backend.GateTopK({.logits = MatrixView<float>(logits.data(), num_rows, num_experts),
                    .recipe = recipe,
                    .choice_bias = choice_bias.empty() ? nullptr : choice_bias.data(),
                    .expert_ids = {ranked.expert_ids.data(), num_rows, num_ranked},
                    .weights = {ranked.weights.data(), num_rows, num_ranked},
                    .gate = {ranked.gate.data(), num_rows, num_ranked},
                    .mass = ranked.mass,
                    .row_failed = ranked.failed});
  return ranked;
}

// Every instruction set and the number of threads: the reference's choices, its weights within
// what f32 costs, and the same bits.
using Backends = std::vector<std::unique_ptr<Backend>>;
void ExpectReferenceChoices(const Backends& backends, int n, const GateRecipe& recipe,
                            bool has_bias) {
  SCOPED_TRACE(testing::Message() << n << " experts, top " << recipe.top_k << ", score "
                                  << static_cast<int>(recipe.score) << ", " << recipe.num_groups
                                  << " groups");
  ReferenceBackend reference;
  const std::vector<float> logits = RandomFloats(n, 70 * n, 4);
  const std::vector<float> bias = has_bias ? RandomFloats(n + 1, n, 0.5f) : std::vector<float>();
  const Chosen expected = Choose(reference, logits, n, recipe, bias);
  const Chosen first = Choose(*backends[0], logits, n, recipe, bias);
  for (const std::unique_ptr<Backend>& backend : backends) {
    const Chosen chosen = Choose(*backend, logits, n, recipe, bias);
    EXPECT_EQ(chosen.expert_ids, expected.expert_ids);
    EXPECT_THAT(chosen.failed, Each(0));
    EXPECT_TRUE(SameBits(chosen.weights, first.weights)) << backend->isa();
    for (size_t i = 0; i < chosen.weights.size(); ++i) {
      // exp within 2 ulp (4 roundings) over an argument that rounded too (up to 32 * 2^-24), and
      // n / 8 + top_k roundings in the sums.
      const double tolerance = std::ldexp(32 + 8 + n / 8 + recipe.top_k, -24) * expected.weights[i];
      ASSERT_NEAR(chosen.weights[i], expected.weights[i], tolerance) << backend->isa() << " " << i;
    }
  }
}

TEST(GateTopKTest, AgreesWithTheReferenceForEveryNumberOfExperts) {
  const Backends backends = AllCpuBackends();
  for (const int n : {1, 2, 6, 17, 60, 128, 300}) {
    for (const int top_k : {1, std::min(n, 8), n}) {
      for (const bool renormalise : {false, true}) {
        ExpectReferenceChoices(backends, n,
                               {.top_k = top_k, .renormalise = renormalise, .scale = 2.5f}, false);
      }
    }
  }
}

TEST(GateTopKTest, AgreesWithTheReferenceInEveryRecipe) {
  const Backends backends = AllCpuBackends();
  for (const GateScore score :
       {GateScore::kSoftmax, GateScore::kSoftmaxOfChosen, GateScore::kSigmoid}) {
    for (const GroupScore group_score : {GroupScore::kLargest, GroupScore::kSumOfTwoLargest}) {
      for (const int num_groups : {1, 2, 5, 10}) {
        for (const int n : {20, 60, 160}) {
          GateRecipe recipe{.score = score,
                            .logit_scale = score == GateScore::kSoftmax ? 0.3f : 1.0f,
                            .top_k = std::min(6, n / num_groups),
                            .renormalise = n == 60,
                            .scale = 2.5f,
                            .num_groups = num_groups,
                            .num_open_groups = (num_groups + 1) / 2,
                            .group_score = group_score};
          ExpectReferenceChoices(backends, n, recipe, false);
          if (score != GateScore::kSoftmaxOfChosen)
            ExpectReferenceChoices(backends, n, recipe, true);
        }
      }
    }
  }
}

// The chosen stand as they do alone, to the bit; what is ranked behind them, P and the mass are the
// reference's.
TEST(GateTopKTest, RanksBeyondTheChosenWithTheGateValuesOfTheReference) {
  const Backends backends = AllCpuBackends();
  ReferenceBackend reference;
  for (const GateScore score :
       {GateScore::kSoftmax, GateScore::kSoftmaxOfChosen, GateScore::kSigmoid}) {
    for (const int num_groups : {1, 5}) {
      for (const int n : {10, 60, 160}) {
        const GateRecipe recipe{.score = score,
                                .top_k = 2,
                                .renormalise = n == 60,
                                .scale = 2.5f,
                                .num_groups = num_groups,
                                .num_open_groups = (num_groups + 1) / 2};
        const std::vector<float> logits = RandomFloats(n, 40 * n, 4);
        const int num_ranked = 8;  // of 10 experts in 5 groups 6 are open
        const Ranked expected = RankExperts(reference, logits, n, recipe, num_ranked);
        for (const std::unique_ptr<Backend>& backend : backends) {
          const Ranked ranked = RankExperts(*backend, logits, n, recipe, num_ranked);
          const Chosen alone = Choose(*backend, logits, n, recipe);
          EXPECT_EQ(ranked.expert_ids, expected.expert_ids);
          EXPECT_EQ(ranked.expert_ids[7] == -1, n == 10 && num_groups == 5);
          for (int row = 0; row < 40; ++row) {
            double mass = 0;
            for (int i = 0; i < num_ranked; ++i) {
              const int at = row * num_ranked + i;
              const double relative = std::ldexp(32 + 8 + n / 8 + 2, -24);
              ASSERT_NEAR(ranked.gate[at], expected.gate[at], relative * expected.gate[at]);
              ASSERT_NEAR(ranked.weights[at], expected.weights[at],
                          relative * expected.weights[at]);
              if (i >= recipe.top_k) continue;
              ASSERT_EQ(ranked.weights[at], alone.weights[row * recipe.top_k + i]);
              mass += ranked.gate[at];
            }
            ASSERT_NEAR(ranked.mass[row], mass, 1e-6 * mass);
          }
        }
      }
    }
  }
}

TEST(GateTopKTest, AFailedRowHasNoRankNoGateValueAndNoMass) {
  for (const std::string& isa : Isas()) {
    const Ranked ranked = RankExperts(*MakeCpu(isa), {1, 2, NAN, 0}, 4, {.top_k = 2}, 3);
    EXPECT_THAT(ranked.expert_ids, ElementsAre(0, 1, -1));
    EXPECT_THAT(ranked.gate, Each(0));
    EXPECT_THAT(ranked.mass, ElementsAre(0));
  }
}

// Cases worked by hand, on the reference and every instruction set.
class GateRecipeTest : public ::testing::TestWithParam<std::string> {
 protected:
  Chosen Choose(const std::vector<float>& logits, const GateRecipe& recipe,
                const std::vector<float>& choice_bias = {}) {
    const int num_experts = static_cast<int>(logits.size());
    if (GetParam() != "reference") {
      return gatehouse::Choose(*MakeCpu(GetParam()), logits, num_experts, recipe, choice_bias);
    }
    ReferenceBackend reference;
    return gatehouse::Choose(reference, logits, num_experts, recipe, choice_bias);
  }
};

constexpr float kLog2 = 0.69314718f, kLog3 = 1.0986123f;

TEST_P(GateRecipeTest, SoftmaxOfChosenSharesAllWeightAmongThem) {
  const Chosen chosen =
      Choose({kLog2, 0, kLog3, -9}, {.score = GateScore::kSoftmaxOfChosen, .top_k = 3, .scale = 6});
  EXPECT_THAT(chosen.expert_ids, ElementsAre(2, 0, 1));
  EXPECT_THAT(chosen.weights, Pointwise(FloatEq(), {3.0f, 2.0f, 1.0f}));
}

TEST_P(GateRecipeTest, TheLargestScoreOpensAGroupAndWeightsStayShares) {
  // Groups {0, 1}, {2, 3}, {4, 5}: the last two are open, though expert 0 beats 3 and 5.
  const Chosen chosen = Choose({kLog2, kLog2, kLog3, 0, 2 * kLog2, 0},
                               {.top_k = 3, .scale = 13, .num_groups = 3, .num_open_groups = 2});
  EXPECT_THAT(chosen.expert_ids, ElementsAre(4, 2, 3));
  EXPECT_THAT(chosen.weights, Pointwise(FloatEq(), {4.0f, 3.0f, 1.0f}));
}

TEST_P(GateRecipeTest, TheTwoLargestOpenAGroupAndEqualGroupsGoToTheLower) {
  // Sums .5 + .75, .9, .5 + .75: expert 2 alone is best, its group is not.
  const GateRecipe recipe{.score = GateScore::kSigmoid,
                          .top_k = 2,
                          .num_groups = 3,
                          .num_open_groups = 1,
                          .group_score = GroupScore::kSumOfTwoLargest};
  const Chosen chosen = Choose({0, kLog3, 2 * kLog3, -9, kLog3, 0}, recipe);
  EXPECT_THAT(chosen.expert_ids, ElementsAre(1, 0));
  EXPECT_THAT(chosen.weights, Pointwise(FloatEq(), {0.75f, 0.5f}));
}

TEST_P(GateRecipeTest, TheBiasSwaysTheChoiceButNotTheWeight) {
  const GateRecipe recipe{
      .score = GateScore::kSigmoid, .top_k = 2, .renormalise = true, .scale = 2.5f};
  const Chosen chosen = Choose({kLog3, 0, -kLog3}, recipe, {-1, 0, 2});
  EXPECT_THAT(chosen.expert_ids, ElementsAre(2, 1));  // 2.25, .5, -.25
  EXPECT_THAT(chosen.weights, Pointwise(FloatEq(), {2.5f / 3, 5.0f / 3}));
}

TEST_P(GateRecipeTest, AClosedGroupStaysClosedWhereEveryBiasedScoreIsNegative) {
  const GateRecipe recipe{.score = GateScore::kSigmoid,
                          .top_k = 2,
                          .num_groups = 2,
                          .num_open_groups = 1,
                          .group_score = GroupScore::kSumOfTwoLargest};
  // Masking with 0 instead would let 0 and 1 win.
  const Chosen chosen = Choose({0, 0, 0, 0}, recipe, {-8, -8, -2, -4});
  EXPECT_THAT(chosen.expert_ids, ElementsAre(2, 3));
  EXPECT_THAT(chosen.weights, Pointwise(FloatEq(), {0.5f, 0.5f}));
}

std::vector<std::string> ReferenceAndIsas() {
  std::vector<std::string> names = Isas();
  names.emplace_back("reference");
  return names;
}

INSTANTIATE_TEST_SUITE_P(Backends, GateRecipeTest, ::testing::ValuesIn(ReferenceAndIsas()),
                         [](const auto& info) { return info.param; });

TEST(GateTopKTest, RanksByLogitWhereProbabilitiesUnderflowAndTiesGoToTheLowerId) {
  const std::vector<float> logits = {-500, -400, 900, -400, -0.0f, 0.0f, 900, -450, 1};
  const std::vector<int32_t> ranking = {2, 6, 8, 4, 5, 1, 3, 7, 0};
  for (const std::string& isa : Isas()) {
    for (int top_k = 1; top_k <= 9; ++top_k) {  // the cut falls within and between ties
      const std::vector<int32_t> head(ranking.begin(), ranking.begin() + top_k);
      EXPECT_EQ(Choose(*MakeCpu(isa), logits, 9, {.top_k = top_k}).expert_ids, head) << isa;
    }
  }
}

TEST(GateTopKTest, ARowWithALogitThatIsNotFiniteFailsAloneAndGivesNothing) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const float bad : {kInf, -kInf, std::numeric_limits<float>::quiet_NaN()}) {
    for (const int at : {0, 7, 8, 10}) {  // in a full register and in the rest
      std::vector<float> logits = RandomFloats(5, 3 * 11);
      logits[11 + at] = bad;
      for (const std::string& isa : Isas()) {
        for (const GateScore score :
             {GateScore::kSoftmax, GateScore::kSoftmaxOfChosen, GateScore::kSigmoid}) {
          const Chosen chosen = Choose(*MakeCpu(isa), logits, 11, {.score = score, .top_k = 2});
          EXPECT_THAT(chosen.failed, ElementsAre(0, 1, 0)) << bad << " at " << at;
          EXPECT_EQ(chosen.expert_ids[2], 0);
          EXPECT_EQ(chosen.expert_ids[3], 1);
          EXPECT_EQ(chosen.weights[2], 0);
          EXPECT_EQ(chosen.weights[3], 0);
          EXPECT_GT(chosen.weights[0], 0);
        }
      }
    }
  }
}

}  // namespace
}  // namespace gatehouse
