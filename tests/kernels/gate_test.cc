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

struct Chosen {
  std::vector<int32_t> expert_ids;
  std::vector<float> weights;
  std::vector<uint8_t> failed;
};

Chosen Choose(Backend& backend, std::vector<float> logits, int num_experts, int top_k,
              bool renormalise = false) {
  const int64_t num_rows = static_cast<int64_t>(logits.size()) / num_experts;
  Chosen chosen{std::vector<int32_t>(num_rows * top_k, -1), std::vector<float>(num_rows * top_k),
                std::vector<uint8_t>(num_rows)};
  backend.GateTopK({.logits = MatrixView<float>(logits.data(), num_rows, num_experts),
                    .top_k = top_k,
                    .renormalise = renormalise,
                    .scale = 2.5f,
                    .expert_ids = {chosen.expert_ids.data(), num_rows, top_k},
                    .weights = {chosen.weights.data(), num_rows, top_k},
                    .row_failed = chosen.failed});
  return chosen;
}

TEST(GateTopKTest, AgreesWithTheReferenceForEveryNumberOfExperts) {
  ReferenceBackend reference;
  for (const int n : {1, 2, 6, 17, 60, 128, 300}) {
    for (const int top_k : {1, std::min(n, 8), n}) {
      for (const bool renormalise : {false, true}) {
        const std::vector<float> logits = RandomFloats(n, 70 * n, 4);
        const Chosen expected = Choose(reference, logits, n, top_k, renormalise);
        const Chosen first = Choose(*MakeCpu("portable"), logits, n, top_k, renormalise);
        for (const std::unique_ptr<Backend>& backend : AllCpuBackends()) {
          const Chosen chosen = Choose(*backend, logits, n, top_k, renormalise);
          EXPECT_EQ(chosen.expert_ids, expected.expert_ids) << n << " top " << top_k;
          EXPECT_THAT(chosen.failed, Each(0));
          EXPECT_TRUE(SameBits(chosen.weights, first.weights)) << n << " " << backend->isa();
          for (size_t i = 0; i < chosen.weights.size(); ++i) {
            // exp within 2 ulp (4 roundings) over an argument that rounded too (up to 32 * 2^-24),
            // and n / 8 + top_k roundings in the sums.
            const double tolerance = std::ldexp(32 + 8 + n / 8 + top_k, -24) * expected.weights[i];
            ASSERT_NEAR(chosen.weights[i], expected.weights[i], tolerance) << n << " at " << i;
          }
        }
      }
    }
  }
}

TEST(GateTopKTest, RanksByLogitWhereProbabilitiesUnderflowAndTiesGoToTheLowerId) {
  const std::vector<float> logits = {-500, -400, 900, -400, -0.0f, 0.0f, 900, -450, 1};
  const std::vector<int32_t> ranking = {2, 6, 8, 4, 5, 1, 3, 7, 0};
  for (const std::string& isa : Isas()) {
    for (int top_k = 1; top_k <= 9; ++top_k) {  // the cut falls within and between ties
      const std::vector<int32_t> head(ranking.begin(), ranking.begin() + top_k);
      EXPECT_EQ(Choose(*MakeCpu(isa), logits, 9, top_k).expert_ids, head) << isa;
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
        const Chosen chosen = Choose(*MakeCpu(isa), logits, 11, 2);
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

}  // namespace
}  // namespace gatehouse
