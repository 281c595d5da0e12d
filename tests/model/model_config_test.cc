#include "engine/model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The config.json of the demonstration model.
constexpr char kDemo[] = R"({
  "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "torch_dtype": "bfloat16",
  "vocab_size": 4096, "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8,
  "num_key_value_heads": 4, "head_dim": 32, "intermediate_size": 256, "moe_intermediate_size": 128,
  "num_experts": 16, "num_experts_per_tok": 2, "norm_topk_prob": true, "decoder_sparse_step": 1,
  "mlp_only_layers": [], "router_aux_loss_coef": 0.01, "output_router_logits": false,
  "hidden_act": "silu", "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "rope_scaling": null,
  "max_position_embeddings": 256, "attention_bias": false, "attention_dropout": 0.0,
  "use_sliding_window": false, "sliding_window": null, "tie_word_embeddings": true,
  "initializer_range": 0.02, "bos_token_id": 0, "eos_token_id": 0, "use_cache": true
})";

ModelConfig Parse(std::string_view text) {
  const absl::StatusOr<ModelConfig> config = ParseModelConfig(text, "config.json");
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *config : ModelConfig();
}

TEST(ModelConfigTest, ReadsTheDemonstrationModel) {
  const ModelConfig config = Parse(kDemo);
  EXPECT_EQ(config.family, "qwen3_moe");
  EXPECT_EQ(config.num_layers, 6);
  EXPECT_EQ(config.num_moe_layers(), 6);
  EXPECT_EQ(config.attention.head_dim, 32);
  EXPECT_EQ(config.attention.qk_norm, QkNorm::kPerHead);
  EXPECT_FALSE(config.attention.qkv_bias);
  EXPECT_FLOAT_EQ(config.attention.scale, 0.17677669f);
  EXPECT_TRUE(config.moe.renormalise);
  EXPECT_EQ(config.max_context, 256);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(0));
}

TEST(CountParametersTest, EqualsTheCountOfTheDemonstrationModelsFile) {
  const ParameterCount count = CountParameters(Parse(kDemo));
  EXPECT_EQ(count.total(), 11'693'696);
  EXPECT_EQ(count.expert, 6 * 16 * 3 * 256 * 128);
  EXPECT_EQ(count.active, 3'436'160);
}

}  // namespace
}  // namespace gatehouse
