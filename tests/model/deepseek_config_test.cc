#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/model/model_config.h"
#include "nlohmann/json.hpp"

namespace gatehouse {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Sizes that both versions read; everything else is a default.
json Config(const char* model_type) {
  return {{"model_type", model_type},      {"hidden_size", 64},        {"num_hidden_layers", 3},
          {"num_attention_heads", 4},      {"num_key_value_heads", 4}, {"qk_nope_head_dim", 10},
          {"qk_rope_head_dim", 6},         {"n_routed_experts", 16},   {"num_experts_per_tok", 4},
          {"max_position_embeddings", 128}};
}

ModelConfig Read(const json& config) {
  const absl::StatusOr<ModelConfig> read = ParseModelConfig(config.dump(), "config.json");
  EXPECT_TRUE(read.ok()) << read.status();
  return read.value_or(ModelConfig{});
}

// The same with one key changed.
ModelConfig Read(json config, const char* key, const json& value) {
  config[key] = value;
  return Read(config);
}

std::string Refusal(json config, const char* key, const json& value) {
  config[key] = value;
  return std::string(ParseModelConfig(config.dump(), "config.json").status().message());
}

TEST(DeepseekV2ConfigTest, OmittedKeysTakeTheDefaultsOfTransformers) {
  const ModelConfig config = Read(Config("deepseek_v2"));
  EXPECT_EQ(config.vocab_size, 102400);
  EXPECT_EQ(config.attention.latent.q_rank, 1536);
  EXPECT_EQ(config.attention.latent.kv_rank, 512);
  EXPECT_EQ(config.attention.latent.value_dim, 128);
  EXPECT_TRUE(config.attention.latent.rotates_pairs);
  EXPECT_EQ(config.attention.head_dim, 16);
  EXPECT_FLOAT_EQ(config.attention.scale, 0.25f);
  EXPECT_EQ(config.moe.gate.score, GateScore::kSoftmax);
  EXPECT_EQ(config.moe.gate.num_groups, 1);
  EXPECT_FALSE(config.moe.gate.renormalise);
  EXPECT_EQ(config.moe.gate.scale, 1);
  EXPECT_EQ(config.moe.intermediate_size, 1407);
  EXPECT_EQ(config.moe.shared_intermediate_size, 2 * 1407);
  EXPECT_THAT(config.is_moe_layer, ElementsAre(true, true, true));
  EXPECT_THAT(config.eos_token_ids, ElementsAre(2));
}

TEST(DeepseekV3ConfigTest, OmittedKeysTakeTheDefaultsOfTransformers) {
  const ModelConfig config = Read(Config("deepseek_v3"));
  EXPECT_EQ(config.vocab_size, 129280);
  EXPECT_EQ(config.moe.gate.score, GateScore::kSigmoid);
  EXPECT_EQ(config.moe.gate.num_groups, 8);
  EXPECT_EQ(config.moe.gate.num_open_groups, 4);
  EXPECT_EQ(config.moe.gate.group_score, GroupScore::kSumOfTwoLargest);
  EXPECT_TRUE(config.moe.gate.renormalise);
  EXPECT_EQ(config.moe.gate.scale, 2.5f);
  EXPECT_EQ(config.moe.shared_intermediate_size, 2048);
  EXPECT_THAT(config.is_moe_layer, ElementsAre(false, false, false));
  EXPECT_TRUE(config.attention.latent.rotates_pairs);
  EXPECT_FALSE(
      Read(Config("deepseek_v3"), "rope_interleave", false).attention.latent.rotates_pairs);
  EXPECT_EQ(Read(Config("deepseek_v3"), "q_lora_rank", nullptr).attention.latent.q_rank, 0);
}

TEST(DeepseekConfigTest, YarnsMscaleOfAllDimensionsIsInTheScaleInBothSpellings) {
  const json yarn = {{"factor", 4.0},
                     {"mscale", 1.0},
                     {"mscale_all_dim", 0.5},
                     {"original_max_position_embeddings", 32}};
  json old_rope = yarn, new_rope = yarn;
  old_rope["type"] = "yarn";
  new_rope["rope_type"] = "yarn";
  const double mscale = 0.1 * 0.5 * std::log(4.0) + 1;
  for (const char* family : {"deepseek_v2", "deepseek_v3"}) {
    const ModelConfig old_spelling = Read(Config(family), "rope_scaling", old_rope);
    const ModelConfig new_spelling = Read(Config(family), "rope_parameters", new_rope);
    EXPECT_FLOAT_EQ(old_spelling.attention.scale, static_cast<float>(0.25 * mscale * mscale));
    EXPECT_EQ(new_spelling.attention.scale, old_spelling.attention.scale);
  }
}

TEST(DeepseekConfigTest, RefusesByNameWhatItWouldComputeWrongly) {
  const json v2 = Config("deepseek_v2"), v3 = Config("deepseek_v3");
  EXPECT_THAT(Refusal(v2, "norm_topk_prob", true), HasSubstr("norm_topk_prob: got true"));
  EXPECT_THAT(Refusal(v2, "topk_method", "noaux_tc"), HasSubstr("topk_method: got \"noaux_tc\""));
  EXPECT_THAT(Refusal(v2, "topk_method", "group_limited_greedy"), HasSubstr("n_group"));
  EXPECT_THAT(Refusal(v2, "mlp_bias", true), HasSubstr("mlp_bias: got true"));
  EXPECT_THAT(Refusal(v2, "scoring_func", "sigmoid"), HasSubstr("scoring_func"));
  EXPECT_THAT(Refusal(v3, "scoring_func", "softmax"), HasSubstr("scoring_func"));
  EXPECT_THAT(Refusal(v3, "n_group", 16), HasSubstr("n_group: got 16"));  // groups of one
  EXPECT_THAT(Refusal(v3, "n_group", 5), HasSubstr("n_group: got 5"));
  EXPECT_THAT(Refusal(v3, "n_group", nullptr), HasSubstr("n_group: got null"));
  EXPECT_THAT(Refusal(v3, "topk_group", 9), HasSubstr("topk_group: got 9"));
  EXPECT_THAT(Refusal(v3, "topk_group", 1), HasSubstr("num_experts_per_tok: got 4"));
  EXPECT_THAT(Refusal(v3, "num_key_value_heads", 2), HasSubstr("num_key_value_heads: got 2"));
  EXPECT_THAT(Refusal(v3, "qk_rope_head_dim", 5), HasSubstr("qk_rope_head_dim: got 5"));
  EXPECT_THAT(Refusal(v3, "kv_lora_rank", 0), HasSubstr("kv_lora_rank: got 0"));
  EXPECT_THAT(Refusal(v3, "n_shared_experts", 0), HasSubstr("n_shared_experts: got 0"));
}

}  // namespace
}  // namespace gatehouse
