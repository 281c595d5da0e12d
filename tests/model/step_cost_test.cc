#include "engine/model/step_cost.h"

#include <gtest/gtest.h>

#include "engine/model/checkpoint.h"
#include "engine/model/model_tensors.h"
#include "tests/testing/checkpoint_builder.h"

namespace gatehouse {
namespace {

// One dense layer, then one of experts. Hidden 32, 4 heads and 2 kv heads of 8 channels, a
// vocabulary of 300, 5 experts of width 64, a dense MLP of width 96.
constexpr int kHidden = 32, kQkv = (4 + 2 * 2) * 8, kHeads = 4 * 8, kVocab = 300;
constexpr int kExperts = 5, kExpertWidth = 64, kDenseWidth = 96;
constexpr double kAttentionWeights = kQkv * kHidden + kHidden * kHeads;
constexpr double kDenseWeights = 2 * kAttentionWeights + 3 * kHidden * kDenseWidth;
constexpr double kRouterWeights = kExperts * kHidden;
constexpr double kExpertWeights = 3 * kHidden * kExpertWidth;
constexpr double kHeadWeights = kVocab * kHidden;
constexpr double kPaddedHeadWeights = 320 * kHidden;   // panels of 32 outputs
constexpr double kPaddedRouterWeights = 32 * kHidden;  // likewise

class StepCostTest : public ::testing::Test {
 protected:
  StepCostTest() {
    WriteCheckpoint(MakeTinyQwen3Moe({.hidden_size = kHidden,
                                      .num_layers = 2,
                                      .intermediate_size = kDenseWidth,
                                      .moe_intermediate_size = kExpertWidth,
                                      .num_experts = kExperts,
                                      .mlp_only_layers = {0},
                                      .dtype = DType::kBF16}),
                    dir_.path());
    config_ = *LoadModelConfig(dir_.path());
  }

  ModelCost Cost(WeightFormat experts, WeightFormat dense, KvType kv = KvType::kF32) const {
    const std::unique_ptr<Backend> backend = *MakeBackend("cpu", {.num_threads = 1});
    const Checkpoint checkpoint = *Checkpoint::Open(dir_.path());
    const ModelTensors tensors = GroupTensors(config_, *FindTensors(checkpoint, config_));
    return CostOfModel(config_, tensors, {.experts = experts, .dense = dense},
                       {.num_kv_heads = 2, .head_dim = 8, .block_tokens = 16, .type = kv},
                       *backend);
  }
  // Experts 1 (of three rows) and 4 (of one).
  static RoutePlan Route() {
    return {.num_rows = 2,
            .num_experts = kExperts,
            .top_k = 2,
            .row_ids = {0, 1, 1, 0},
            .expert_begin = {0, 0, 3, 3, 3, 4}};
  }

  TempDir dir_;
  ModelConfig config_;
};

TEST_F(StepCostTest, CountsADecodeStepAsByHand) {
  const ModelCost model = Cost(WeightFormat::kBF16, WeightFormat::kBF16);
  const SequenceSpan sequences[] = {{.first_row = 0, .num_rows = 1, .first_position = 9},
                                    {.first_row = 1, .num_rows = 1, .first_position = 0}};
  const RoutePlan route = Route();
  const StepCost cost =
      CostOfStep(model, {.sequences = sequences, .num_logit_rows = 1, .routes = {&route, 1}});
  EXPECT_EQ(cost.dense_bytes, 2 * (kDenseWeights + kPaddedRouterWeights + kPaddedHeadWeights));
  EXPECT_EQ(cost.expert_bytes, 2 * 2 * kExpertWeights);
  // 10 positions and 1, of 2 layers, 2 kv heads, key and value of 8 f32.
  EXPECT_EQ(cost.kv_bytes, (10 + 1) * 2 * 2 * 2 * 8 * 4);
  const double attention = 2.0 * (10 + 1) * 2 * 4 * (8 + 8);
  EXPECT_EQ(
      cost.operations.in_float,
      2 * (2 * (kDenseWeights + kRouterWeights) + kHeadWeights + 4 * kExpertWeights) + attention);
  EXPECT_EQ(cost.operations.in_integer, 0);
  EXPECT_EQ(cost.bytes(), cost.dense_bytes + cost.expert_bytes + cost.kv_bytes);
}

TEST_F(StepCostTest, CountsAPrefillWithoutLogitsAsByHand) {
  const ModelCost model = Cost(WeightFormat::kBF16, WeightFormat::kBF16);
  const SequenceSpan chunk{.first_row = 0, .num_rows = 2, .first_position = 4};
  const RoutePlan route = Route();
  const StepCost cost = CostOfStep(model, {.sequences = {&chunk, 1}, .routes = {&route, 1}});
  EXPECT_EQ(cost.dense_bytes, 2 * (kDenseWeights + kPaddedRouterWeights));
  EXPECT_EQ(cost.kv_bytes, 6 * 2 * 2 * 2 * 8 * 4);           // each position once
  const double attention = 2.0 * (5 + 6) * 2 * 4 * (8 + 8);  // each row all before it
  EXPECT_EQ(cost.operations.in_float,
            2 * (2 * (kDenseWeights + kRouterWeights) + 4 * kExpertWeights) + attention);
}

// int8: 32 codes and a scale of 2 bytes; int4: 16 bytes and 2. The router is bf16 as stored.
TEST_F(StepCostTest, TellsNarrowWeightsFromOthers) {
  const ModelCost model = Cost(WeightFormat::kInt4, WeightFormat::kInt8);
  const SequenceSpan row{.num_rows = 2};
  const RoutePlan route = Route();
  const StepCost cost =
      CostOfStep(model, {.sequences = {&row, 1}, .num_logit_rows = 2, .routes = {&route, 1}});
  EXPECT_EQ(cost.dense_bytes,
            (kDenseWeights + kPaddedHeadWeights) * 34 / 32 + 2 * kPaddedRouterWeights);
  EXPECT_EQ(cost.expert_bytes, 2 * kExpertWeights * 18 / 32);
  const double attention = 2.0 * (1 + 2) * 2 * 4 * (8 + 8);
  EXPECT_EQ(cost.operations.in_float, 2 * 2 * kRouterWeights + attention);
  EXPECT_EQ(cost.operations.in_integer,
            2 * (2 * kDenseWeights + 2 * kHeadWeights + 4 * kExpertWeights));
}

TEST_F(StepCostTest, AWindowHidesWhatLiesBeforeIt) {
  config_.attention.windows = {0, 3};
  const ModelCost model = Cost(WeightFormat::kBF16, WeightFormat::kBF16);
  const SequenceSpan chunk{.num_rows = 2, .first_position = 9};
  const RoutePlan route = Route();
  const StepCost cost = CostOfStep(model, {.sequences = {&chunk, 1}, .routes = {&route, 1}});
  // All 11 positions in one layer; 7, 8, 9 and 10 in the other, of which each row sees 3.
  EXPECT_EQ(cost.kv_bytes, (11 + 4) * 2 * 2 * 8 * 4);
  const double attention = 2.0 * ((10 + 11) + (3 + 3)) * 4 * (8 + 8);
  EXPECT_EQ(cost.operations.in_float,
            2 * (2 * (kDenseWeights + kRouterWeights) + 4 * kExpertWeights) + attention);
}

TEST(BoundOfTest, IsTheLongerOfReadingAndComputing) {
  const StepCost cost{.dense_bytes = 3e9,
                      .expert_bytes = 4e9,
                      .kv_bytes = 1e9,
                      .operations = {.in_float = 1e9, .in_integer = 9e9}};
  const StepBound bound = BoundOf(cost, {.read_bytes_per_second = 2e9,
                                         .float_operations_per_second = 1e9,
                                         .integer_operations_per_second = 3e9});
  EXPECT_EQ(bound.read_seconds, 4);
  EXPECT_EQ(bound.compute_seconds, 1 + 3);
  EXPECT_EQ(bound.seconds(), 4);
  EXPECT_EQ(BoundOf(cost, {.float_operations_per_second = 1e9}).seconds(), 1);
  EXPECT_EQ(BoundOf(cost, {}).seconds(), 0);
}

}  // namespace
}  // namespace gatehouse
