#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/model/model_config.h"
#include "nlohmann/json.hpp"

namespace gatehouse {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json Config() {
  return {{"model_type", "gatehouse_locmoe"},
          {"gate", "grap"},
          {"hidden_size", 48},
          {"num_hidden_layers", 2},
          {"num_experts", 6},
          {"num_experts_per_tok", 2},
          {"num_attention_heads", 4},
          {"moe_intermediate_size", 8}};
}

ModelConfig Read(const json& own = json::object()) {
  json config = Config();
  config.update(own);
  const absl::StatusOr<ModelConfig> read = ParseModelConfig(config.dump(), "config.json");
  EXPECT_TRUE(read.ok()) << read.status();
  return read.value_or(ModelConfig{});
}

std::string Refusal(const json& own) {
  json config = Config();
  config.update(own);
  return std::string(ParseModelConfig(config.dump(), "config.json").status().message());
}

TEST(LocMoeConfigTest, OmittedKeysTakeTheirDefaults) {
  const ModelConfig config = Read();
  EXPECT_EQ(config.moe.gate_rows, GateRows::kBlockMeans);
  EXPECT_TRUE(config.moe.gate_by_cosine);
  EXPECT_FLOAT_EQ(config.moe.gate.logit_scale, std::sqrt(48.0f));
  EXPECT_EQ(config.moe.gate.score, GateScore::kSoftmax);
  EXPECT_FALSE(config.moe.gate.renormalise);
  EXPECT_EQ(config.tensor_names.router, "");
  EXPECT_EQ(config.vocab_size, 151936);  // as Qwen3-MoE
}

TEST(LocMoeConfigTest, ReadsTheGate) {
  const ModelConfig learned = Read({{"gate", "learned"}, {"router_scale", 3}, {"num_experts", 5}});
  EXPECT_EQ(learned.moe.gate_rows, GateRows::kLearned);
  EXPECT_FLOAT_EQ(learned.moe.gate.logit_scale, 3);
  EXPECT_NE(learned.tensor_names.router, "");
  EXPECT_EQ(learned.tensor_names.refused_router, "");
  const ModelConfig dot = Read({{"affinity", "dot"}, {"router_scale", 3}});
  EXPECT_FALSE(dot.moe.gate_by_cosine);
  EXPECT_EQ(dot.moe.gate.logit_scale, 1);  // the scale is the cosine's
}

TEST(LocMoeConfigTest, TrainingHintsChangeNothing) {
  const ModelConfig config = Read({{"capacity_factor", 1.25},
                                   {"affinity_mass", 0.95},
                                   {"capacity_floor", 25},
                                   {"drop_order", "affinity"}});
  EXPECT_EQ(CountParameters(config).total(), CountParameters(Read()).total());
  EXPECT_EQ(config.moe.gate.top_k, Read().moe.gate.top_k);
}

TEST(LocMoeConfigTest, RefusesWhatNobodyComputes) {
  EXPECT_THAT(Refusal({{"gate", nullptr}}), HasSubstr("gate: "));
  EXPECT_THAT(Refusal({{"gate", "mean"}}), HasSubstr("gate: got \"mean\", expected grap or"));
  EXPECT_THAT(Refusal({{"num_experts", 5}}),
              HasSubstr("num_experts: got 5, expected a divisor of hidden_size (48)"));
  EXPECT_THAT(Refusal({{"affinity", "share"}}), HasSubstr("affinity: got \"share\""));
  EXPECT_THAT(Refusal({{"combine", "sigmoid"}}), HasSubstr("combine: got \"sigmoid\""));
  EXPECT_THAT(Refusal({{"router_scale", 0}}), HasSubstr("router_scale: got 0"));
  EXPECT_THAT(Refusal({{"router_scale", "4"}}), HasSubstr("router_scale: got \"4\""));
  EXPECT_THAT(Refusal({{"capacity_factor", -1}}), HasSubstr("capacity_factor: got -1"));
  EXPECT_THAT(Refusal({{"affinity_mass", 0}}), HasSubstr("affinity_mass: got 0, expected more"));
  EXPECT_THAT(Refusal({{"capacity_floor", -1}}), HasSubstr("capacity_floor: got -1"));
  EXPECT_THAT(Refusal({{"drop_order", "arrival"}}), HasSubstr("drop_order: got \"arrival\""));
}

}  // namespace
}  // namespace gatehouse
