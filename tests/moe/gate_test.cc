#include "engine/moe/gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;

// Two experts whose gate rows are (3, 4) and (0, 0), the first with a bias in its logit.
class GateTest : public ::testing::Test {
 protected:
  GateTest() { SetBias(1); }
  void SetBias(float first) {
    const std::vector<float> bias = {first, 0};
    GateWeights weights;
    const WeightView view{.data = router_.data(), .num_rows = 2, .num_cols = 2};
    weights.router = *backend_->PackMatrix({&view, 1}, WeightFormat::kF32);
    weights.row_norms = {5, 0};
    weights.logit_bias = *backend_->Allocate(2 * sizeof(float));
    backend_->CopyFromHost(weights.logit_bias.as<float>(), bias.data(), 2 * sizeof(float));
    gate_.emplace(GateRecipe{.top_k = 1}, std::move(weights));
  }
  GateScores Score(std::vector<float> x, Affinity affinity, std::vector<uint8_t>& failed) {
    const auto num_rows = static_cast<int64_t>(x.size() / 2);
    std::vector<float> logits(x.size());
    failed.resize(num_rows);
    const std::vector<Affinity> affinities(num_rows, affinity);
    return gate_->Score(*backend_, {x.data(), num_rows, 2}, {logits.data(), num_rows, 2},
                        {.num_ranked = 7, .affinities = affinities}, failed);
  }

  std::unique_ptr<Backend> backend_ = *MakeBackend("cpu", {.num_threads = 1});
  std::vector<float> router_ = {3, 4, 0, 0};
  std::optional<Gate> gate_;
};

TEST_F(GateTest, TheCosineIsWithoutBiasAndZeroWhereTheGateRowIs) {
  std::vector<uint8_t> failed;
  const GateScores scores = Score({4, 3, 0, 0}, Affinity::kCosine, failed);
  EXPECT_EQ(scores.num_ranked, 2);  // there are no more
  EXPECT_THAT(scores.ranked_ids, ElementsAre(0, 1, 0, 1));
  // 24 / (5 * 5); a row of zeros has the cosine 0 with everything.
  EXPECT_THAT(scores.affinity, ElementsAre(FloatNear(0.96f, 1e-6f), 0, 0, 0));
  EXPECT_THAT(failed, ElementsAre(0, 0));
}

TEST_F(GateTest, ALargeBiasTakesNoDigitOfTheCosine) {
  SetBias(1e5);  // where floats are 2^-7 apart
  std::vector<uint8_t> failed;
  const GateScores scores = Score({0.001f, 0.002f, 0.004f, -0.002f}, Affinity::kCosine, failed);
  EXPECT_THAT(scores.ranked_ids, ElementsAre(0, 1, 0, 1));
  // (3 + 8) / (5 sqrt(5)), (12 - 8) / (5 sqrt(20))
  EXPECT_THAT(scores.affinity,
              ElementsAre(FloatNear(0.98386991f, 1e-6f), 0, FloatNear(0.17888544f, 1e-6f), 0));
  // The logits, and with them the gate values, have it.
  EXPECT_FLOAT_EQ(scores.gate[0], 1);
}

TEST_F(GateTest, TheShareIsOfTheChosenSum) {
  std::vector<uint8_t> failed;
  const GateScores scores = Score({0, 0}, Affinity::kShare, failed);
  const float p = 1 / (1 + std::exp(-1.0f));  // logits 1 and 0
  EXPECT_THAT(scores.gate, ElementsAre(FloatNear(p, 1e-6f), FloatNear(1 - p, 1e-6f)));
  EXPECT_THAT(scores.affinity, ElementsAre(1, FloatNear((1 - p) / p, 1e-6f)));
}

// Its square is beyond f32, though its logits are not: no cosine, no row.
TEST_F(GateTest, ARowWhoseNormIsNotFiniteFailsWhereACosineIsAskedFor) {
  std::vector<uint8_t> failed;
  GateScores scores = Score({1e25f, 0, 1, 0}, Affinity::kCosine, failed);
  EXPECT_THAT(failed, ElementsAre(1, 0));
  EXPECT_THAT(scores.row_failed, ElementsAre(1, 0));
  failed.assign(2, 0);
  scores = Score({1e25f, 0, 1, 0}, Affinity::kGate, failed);
  EXPECT_THAT(failed, ElementsAre(0, 0));
}

TEST_F(GateTest, ARowThatFailedBeforeStaysFailed) {
  std::vector<uint8_t> failed = {1, 0};
  EXPECT_THAT(Score({1, 0, 1, 0}, Affinity::kGate, failed).row_failed, ElementsAre(1, 0));
}

}  // namespace
}  // namespace gatehouse
