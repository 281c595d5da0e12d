// The specification against numbers worked out by hand.
#include "kernels/reference/reference_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/reference/sample.h"

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::Pointwise;

const float kLog2 = std::log(2.0f), kLog3 = std::log(3.0f);

WeightView F32(const std::vector<float>& values, int64_t num_rows) {
  return {values.data(), DType::kF32, num_rows, static_cast<int64_t>(values.size()) / num_rows};
}

// One sequence from position 0, in the blocks given.
struct OneSequence {
  OneSequence(int num_rows, std::vector<int32_t> block_ids)
      : token_ids(num_rows), positions(num_rows), block_ids(std::move(block_ids)) {
    for (int i = 0; i < num_rows; ++i) positions[i] = i;
    sequence = {.num_rows = num_rows, .block_ids = this->block_ids};
  }
  BatchLayout layout() const {
    return {.token_ids = token_ids, .positions = positions, .sequences = {&sequence, 1}};
  }
  std::vector<int32_t> token_ids, positions, block_ids;
  SequenceSpan sequence;
};

TEST(ReferenceGemmTest, AddsBiasAndWhatStandsInOut) {
  ReferenceBackend backend;
  const std::vector<float> q = {1, 2, 3, 4}, k = {5, 6};  // [2, 2] on top of [1, 2]
  const std::array<WeightView, 2> stacked = {F32(q, 2), F32(k, 1)};
  const auto weights = *backend.PackMatrix(stacked, WeightFormat::kF32);
  std::vector<float> x = {9, 9, 10, 1}, out = {100, 200, 300};
  const std::vector<float> bias = {0.5f, 0.25f, 0};
  const std::vector<int32_t> row_ids = {1};
  backend.Gemm({.x = MatrixView<float>(x.data(), 2, 2),
                .row_ids = row_ids,
                .weights = weights.get(),
                .bias = bias.data(),
                .accumulate = true,
                .out = {out.data(), 1, 3}});
  EXPECT_THAT(out, ElementsAre(112.5f, 234.25f, 356));
}

TEST(ReferenceExpertFfnTest, IsDownOfSiluGateTimesUp) {
  ReferenceBackend backend;
  // silu(0) = 0 and silu(ln 3) = ln 3 * 3/4; hidden 1, intermediate 2.
  const std::vector<float> gate = {0, kLog3}, up = {5, 2}, down = {7, 4};
  const std::array<ExpertSource, 1> source = {ExpertSource{F32(gate, 2), F32(up, 2), F32(down, 1)}};
  const auto experts = *backend.PackExperts(source, WeightFormat::kF32);
  std::vector<float> x = {1}, scratch(2), out(1);
  const std::vector<int32_t> row_ids = {0}, expert_begin = {0, 1};
  backend.ExpertFfn({.x = MatrixView<float>(x.data(), 1, 1),
                     .groups = {row_ids, expert_begin},
                     .experts = experts.get(),
                     .scratch = {scratch.data(), 1, 2},
                     .out = {out.data(), 1, 1}});
  EXPECT_THAT(out, ElementsAre(FloatEq(4 * 2 * kLog3 * 0.75f)));
}

// gate 5 is cut to 2 and up -9 to -2; with alpha ln 3 / 2 the sigmoid is that of ln 3, 3/4.
TEST(ReferenceExpertFfnTest, LimitsGateAboveAndUpOnBothSidesAfterTheirBiases) {
  ReferenceBackend backend;
  const std::vector<float> gate = {4}, up = {-8}, down = {3};
  const std::vector<float> gate_bias = {1}, up_bias = {-1}, down_bias = {0.5f};
  const std::array<ExpertSource, 1> source = {ExpertSource{.gate = F32(gate, 1),
                                                           .up = F32(up, 1),
                                                           .down = F32(down, 1),
                                                           .gate_bias = F32(gate_bias, 1),
                                                           .up_bias = F32(up_bias, 1),
                                                           .down_bias = F32(down_bias, 1)}};
  const auto experts = *backend.PackExperts(source, WeightFormat::kF32);
  std::vector<float> x = {1}, scratch(1), out(1);
  const std::vector<int32_t> row_ids = {0}, expert_begin = {0, 1};
  backend.ExpertFfn(
      {.x = MatrixView<float>(x.data(), 1, 1),
       .groups = {row_ids, expert_begin},
       .experts = experts.get(),
       .activation = {.kind = ExpertActivation::kClampedSwiglu, .alpha = kLog3 / 2, .limit = 2},
       .scratch = {scratch.data(), 1, 1},
       .out = {out.data(), 1, 1}});
  EXPECT_THAT(out, ElementsAre(FloatEq(3 * (-2 + 1) * 2 * 0.75f + 0.5f)));
}

TEST(ReferenceRmsNormTest, DividesByTheRootOfTheMeanSquare) {
  ReferenceBackend backend;
  std::vector<float> x = {1, 7}, weight = {10, 100}, out(2);  // mean square 25
  backend.RmsNorm(
      {.x = MatrixView<float>(x.data(), 1, 2), .weight = weight.data(), .out = {out.data(), 1, 2}});
  EXPECT_THAT(out, ElementsAre(FloatEq(2), FloatEq(140)));
}

TEST(ReferenceQkvToCacheTest, TurnsAQuarterByHalvesAndLeavesTheRest) {
  ReferenceBackend backend;
  const KvShape shape{.num_kv_heads = 1, .head_dim = 6, .block_tokens = 8};
  Buffer cache = *backend.Allocate(backend.KvBlockBytes(shape) * 2);
  const OneSequence one(1, {1});
  backend.BeginStep(one.layout());
  // Channel 0 with 2 by 90 degrees, 1 with 3 not at all; 4 and 5 are beyond rotary_dim.
  const std::vector<float> cos_sin = {0, 1, 1, 0};
  std::vector<float> qkv = {1, 2, 3, 4, 5, 6, 10, 20, 30, 40, 50, 60, 7, 8, 9, 10, 11, 12};
  backend.QkvToCache({.qkv = {qkv.data(), 1, 18},
                      .num_heads = 1,
                      .rope = {cos_sin.data(), 1, 4},
                      .kv = {cache.as<void>(), 2, shape}});
  EXPECT_THAT(std::vector<float>(qkv.begin(), qkv.begin() + 6), ElementsAre(-3, 2, 1, 4, 5, 6));
  const float* block = cache.as<float>() + 2 * 8 * 6;
  EXPECT_THAT(std::vector<float>(block, block + 6), ElementsAre(-30, 20, 10, 40, 50, 60));
  EXPECT_THAT(std::vector<float>(block + 48, block + 54), ElementsAre(7, 8, 9, 10, 11, 12));
}

TEST(ReferenceQkvToCacheTest, NormsEachHeadAlone) {
  ReferenceBackend backend;
  const KvShape shape{.num_kv_heads = 1, .head_dim = 2, .block_tokens = 8};
  Buffer cache = *backend.Allocate(backend.KvBlockBytes(shape));
  const OneSequence one(1, {0});
  backend.BeginStep(one.layout());
  const std::vector<float> q_norm = {1, 2}, k_norm = {3, 1};
  std::vector<float> qkv = {1, 7, 2, 14, 3, 21, 5, 6};  // two q heads, k, v
  backend.QkvToCache({.qkv = {qkv.data(), 1, 8},
                      .num_heads = 2,
                      .q_norm = q_norm.data(),
                      .k_norm = k_norm.data(),
                      .kv = {cache.as<void>(), 1, shape}});
  EXPECT_THAT(qkv, Pointwise(FloatEq(), {0.2f, 2.8f, 0.2f, 2.8f, 0.6f, 1.4f, 5.0f, 6.0f}));
}

TEST(ReferenceAttentionTest, WeighsValuesBySoftmaxAndSeesNoLaterKey) {
  ReferenceBackend backend;
  const KvShape shape{.num_kv_heads = 1, .head_dim = 2, .block_tokens = 8};
  Buffer cache = *backend.Allocate(backend.KvBlockBytes(shape));
  const OneSequence one(2, {0});
  const KvLayerView kv = {cache.as<void>(), 1, shape};
  // Two q heads share the kv head. Keys (0, 5) and (ln 3, 5), values (4, 0) and (0, 8).
  std::vector<float> qkv = {2, 0, 0, 0, 0,     5, 4, 0,  //
                            2, 0, 0, 0, kLog3, 5, 0, 8};
  backend.BeginStep(one.layout());
  backend.QkvToCache({.qkv = {qkv.data(), 2, 8}, .num_heads = 2, .kv = kv});
  std::vector<float> out(8);
  backend.Attention({.q = MatrixView<float>(qkv.data(), 2, 8).Cols(0, 4),
                     .num_heads = 2,
                     .scale = 0.5f,
                     .kv = kv,
                     .out = {out.data(), 2, 4}});
  // Row 0 sees position 0 alone; row 1 weighs 1/4 and 3/4 in head 0, 1/2 each in head 1.
  EXPECT_THAT(out, Pointwise(FloatEq(), {4.0f, 0.0f, 4.0f, 0.0f, 1.0f, 6.0f, 2.0f, 4.0f}));
}

// Scores 0, ln 3 and 0; a window of two leaves positions 1 and 2 to the last row.
TEST(ReferenceAttentionTest, SeesItsWindowAloneAndGivesTheSinkItsShare) {
  ReferenceBackend backend;
  const KvShape shape{.num_kv_heads = 1, .head_dim = 2, .block_tokens = 8};
  Buffer cache = *backend.Allocate(backend.KvBlockBytes(shape));
  const OneSequence three(3, {0});
  const KvLayerView kv = {cache.as<void>(), 1, shape};
  std::vector<float> qkv = {1, 0, 0,     0, 4,  0,  //
                            1, 0, kLog3, 0, 0,  8,  //
                            1, 0, 0,     0, 16, 0};
  backend.BeginStep(three.layout());
  backend.QkvToCache({.qkv = {qkv.data(), 3, 6}, .num_heads = 1, .kv = kv});
  const std::vector<float> sinks = {kLog2};
  std::vector<float> out(6);
  backend.Attention({.q = MatrixView<float>(qkv.data(), 3, 6).Cols(0, 2),
                     .num_heads = 1,
                     .scale = 1,
                     .window = 2,
                     .sinks = sinks.data(),
                     .kv = kv,
                     .out = {out.data(), 3, 2}});
  // Weights 1 beside a sink of 2; 1 and 3 beside it; 3 and 1 beside it.
  EXPECT_THAT(out,
              Pointwise(FloatEq(), {4 / 3.0f, 0.0f, 4 / 6.0f, 24 / 6.0f, 16 / 6.0f, 24 / 6.0f}));
}

TEST(ReferenceGateTopKTest, RanksByLogitAndBreaksTiesByLowerId) {
  ReferenceBackend backend;
  std::vector<float> logits = {0,     kLog2,
                               kLog3, kLog2,  // P = 1/8, 2/8, 3/8, 2/8
                               0,     std::numeric_limits<float>::quiet_NaN(),
                               0,     9};
  std::vector<int32_t> ids(6);
  std::vector<float> weights(6);
  std::vector<uint8_t> failed(2);
  GateTopKArgs args{.logits = MatrixView<float>(logits.data(), 2, 4),
                    .recipe = {.top_k = 3, .scale = 2},
                    .expert_ids = {ids.data(), 2, 3},
                    .weights = {weights.data(), 2, 3},
                    .row_failed = failed};
  backend.GateTopK(args);
  EXPECT_THAT(ids, ElementsAre(2, 1, 3, 0, 1, 2));
  EXPECT_THAT(weights, Pointwise(FloatEq(), {0.75f, 0.5f, 0.5f, 0.0f, 0.0f, 0.0f}));
  EXPECT_THAT(failed, ElementsAre(0, 1));
  args.recipe.renormalise = true;
  args.recipe.scale = 7;
  backend.GateTopK(args);
  EXPECT_THAT(weights, Pointwise(FloatEq(), {3.0f, 2.0f, 2.0f, 0.0f, 0.0f, 0.0f}));
}

TEST(ReferenceCombineTest, AddsTheRowsOfEachToken) {
  ReferenceBackend backend;
  std::vector<float> rows = {1, 2, 10, 20, 100, 200}, out(4, -1);
  const std::vector<int32_t> token_begin = {0, 2, 2}, assignment_ids = {2, 0};
  const std::vector<float> weights = {0.5f, 3};
  backend.Combine({.expert_rows = MatrixView<float>(rows.data(), 3, 2),
                   .token_begin = token_begin,
                   .assignment_ids = assignment_ids,
                   .weights = weights,
                   .out = {out.data(), 2, 2}});
  EXPECT_THAT(out, ElementsAre(53, 106, 0, 0));
}

class ReferenceSampleTest : public ::testing::Test {
 protected:
  RowSample Sample(const RowSampling& row) {
    RowSample sample;
    backend_.Sample({.logits = MatrixView<float>(logits_.data(), 1, 4),
                     .rows = {&row, 1},
                     .samples = {&sample, 1}});
    return sample;
  }
  std::vector<int32_t> CandidateIds(const RowSampling& row) {
    std::vector<int32_t> ids;
    for (const Candidate& c : SamplingDistribution(logits_, row)) ids.push_back(c.id);
    return ids;
  }
  ReferenceBackend backend_;
  // Probabilities 0.3, 0.1, 0.4, 0.2.
  std::vector<float> logits_ = {kLog3, 0, 2 * kLog2, kLog2};
};

TEST_F(ReferenceSampleTest, DrawsFromTheMostLikelyDown) {
  EXPECT_EQ(Sample({.temperature = 1, .uniform = 0.39}).token_id, 2);
  EXPECT_EQ(Sample({.temperature = 1, .uniform = 0.41}).token_id, 0);
  EXPECT_EQ(Sample({.temperature = 1, .uniform = 0.69}).token_id, 0);
  EXPECT_EQ(Sample({.temperature = 1, .uniform = 0.71}).token_id, 3);
  EXPECT_EQ(Sample({.temperature = 1, .uniform = 0.91}).token_id, 1);
  // Temperature 1/2 squares: 16, 9, 4 and 1 of 30.
  EXPECT_EQ(Sample({.temperature = 0.5f, .uniform = 0.53}).token_id, 2);
  EXPECT_EQ(Sample({.temperature = 0.5f, .uniform = 0.54}).token_id, 0);
}

TEST_F(ReferenceSampleTest, FiltersKeepTheSetsWorkedOutByHand) {
  EXPECT_THAT(CandidateIds({.temperature = 1}), ElementsAre(2, 0, 3, 1));
  EXPECT_THAT(CandidateIds({.temperature = 1, .top_k = 2}), ElementsAre(2, 0));
  EXPECT_THAT(CandidateIds({.temperature = 1, .top_p = 0.39f}), ElementsAre(2));
  EXPECT_THAT(CandidateIds({.temperature = 1, .top_p = 0.41f}), ElementsAre(2, 0));
  EXPECT_THAT(CandidateIds({.temperature = 1, .min_p = 0.49f}), ElementsAre(2, 0, 3));
  EXPECT_THAT(CandidateIds({.temperature = 1, .min_p = 0.51f}), ElementsAre(2, 0));
  // top_p works on what top_k left: 4/7 and 3/7.
  EXPECT_THAT(CandidateIds({.temperature = 1, .top_k = 2, .top_p = 0.5f}), ElementsAre(2));
  // Entropy 1.280; surprises 0.916, 1.204, 1.609, 2.303: nearest are 0, then 3, then 2.
  EXPECT_THAT(CandidateIds({.temperature = 1, .typical_p = 0.25f}), ElementsAre(0));
  EXPECT_THAT(CandidateIds({.temperature = 1, .typical_p = 0.45f}), ElementsAre(0, 3));
  EXPECT_THAT(CandidateIds({.temperature = 1, .typical_p = 0.55f}), ElementsAre(2, 0, 3));
}

TEST_F(ReferenceSampleTest, PenaltyComesBeforeBiasAndAllowedIds) {
  logits_ = {2, -2, 1, -5};
  const std::vector<int32_t> repeated = {0, 1}, allowed = {1, 3};
  const std::vector<std::pair<int32_t, float>> bias = {{1, 8}, {1, 0.5f}, {2, -100}};
  const RowSampling row{.repeated_ids = repeated, .repetition_penalty = 2, .bias = bias};
  EXPECT_THAT(AdjustedLogits(logits_, row), ElementsAre(1, 4.5f, -99, -5));
  EXPECT_EQ(Sample(row).token_id, 1);
  EXPECT_EQ(Sample({.allowed_ids = allowed}).token_id, 1);
  const std::vector<std::pair<int32_t, float>> forbid = {
      {1, -std::numeric_limits<float>::infinity()}, {3, -std::numeric_limits<float>::infinity()}};
  for (const float temperature : {0.0f, 1.0f}) {
    EXPECT_EQ(Sample({.temperature = temperature, .bias = forbid, .allowed_ids = allowed}).failure,
              SampleFailure::kAllForbidden);
  }
}

TEST_F(ReferenceSampleTest, LogprobsAreOfTheUnadjustedLogits) {
  const std::vector<std::pair<int32_t, float>> bias = {{1, 100}};
  const RowSample sample = Sample({.bias = bias, .num_top_logprobs = 2});
  EXPECT_EQ(sample.token_id, 1);
  EXPECT_FLOAT_EQ(sample.logprob, std::log(0.1f));
  ASSERT_EQ(sample.top.size(), 2u);
  EXPECT_EQ(sample.top[0].id, 2);
  EXPECT_FLOAT_EQ(sample.top[0].logprob, std::log(0.4f));
  EXPECT_EQ(sample.top[1].id, 0);
  EXPECT_FLOAT_EQ(Sample({.forced_id = 3, .num_top_logprobs = 0}).logprob, std::log(0.2f));
}

}  // namespace
}  // namespace gatehouse
