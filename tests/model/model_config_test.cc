#include "engine/model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gatehouse {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

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
  EXPECT_TRUE(config.moe.gate.renormalise);
  EXPECT_EQ(config.max_context, 256);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(0));
}

// The values of Qwen3MoeConfig() in transformers 5.23.0.
TEST(ModelConfigTest, OmittedKeysTakeTheDefaultsOfTransformers) {
  const ModelConfig config = Parse(R"({"model_type": "qwen3_moe"})");
  EXPECT_EQ(config.vocab_size, 151936);
  EXPECT_EQ(config.hidden_size, 2048);
  EXPECT_EQ(config.num_layers, 24);
  EXPECT_EQ(config.num_moe_layers(), 24);
  EXPECT_EQ(config.dense_intermediate_size, 6144);
  EXPECT_EQ(config.max_context, 32768);
  EXPECT_FLOAT_EQ(config.norm_eps, 1e-6f);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_EQ(config.attention.num_heads, 32);
  EXPECT_EQ(config.attention.num_kv_heads, 4);
  EXPECT_EQ(config.attention.head_dim, 64);  // hidden_size / num_attention_heads
  EXPECT_EQ(config.attention.rope.type, RopeType::kDefault);
  EXPECT_EQ(config.attention.rope.theta, 10000);
  EXPECT_FALSE(config.attention.qkv_bias);
  EXPECT_EQ(config.moe.num_experts, 128);
  EXPECT_EQ(config.moe.gate.top_k, 8);
  EXPECT_EQ(config.moe.intermediate_size, 768);
  EXPECT_FALSE(config.moe.gate.renormalise);
  EXPECT_THAT(config.eos_token_ids, ElementsAre());
}

// The values of the other families' configuration classes in transformers 5.23.0.
TEST(ModelConfigTest, OmittedKeysTakeTheDefaultsOfTheirFamily) {
  const ModelConfig mixtral = Parse(R"({"model_type": "mixtral"})");
  EXPECT_EQ(mixtral.attention.rope.theta, 1e6);
  EXPECT_EQ(mixtral.attention.num_kv_heads, 8);
  EXPECT_EQ(mixtral.moe.intermediate_size, 14336);
  EXPECT_THAT(mixtral.attention.windows, Each(0));
  EXPECT_THAT(mixtral.eos_token_ids, ElementsAre(2));
  const ModelConfig qwen2 = Parse(R"({"model_type": "qwen2_moe"})");
  EXPECT_TRUE(qwen2.attention.qkv_bias);
  EXPECT_FALSE(qwen2.attention.o_bias);
  EXPECT_EQ(qwen2.moe.num_experts, 60);
  EXPECT_EQ(qwen2.moe.shared_intermediate_size, 5632);
  const ModelConfig olmoe = Parse(R"({"model_type": "olmoe"})");
  EXPECT_EQ(olmoe.attention.num_kv_heads, 16);  // as many as heads
  EXPECT_EQ(olmoe.attention.qk_norm, QkNorm::kFullWidth);
  EXPECT_EQ(olmoe.attention.clip_qkv, 0);
  EXPECT_THAT(olmoe.eos_token_ids, ElementsAre(50279));
  const ModelConfig granite = Parse(R"({"model_type": "granitemoe"})");
  EXPECT_EQ(granite.attention.scale, 1);  // not 1 / sqrt(head_dim)
  EXPECT_EQ(granite.attention.num_kv_heads, 32);
  const ModelConfig gpt_oss = Parse(R"({"model_type": "gpt_oss", "num_hidden_layers": 3})");
  EXPECT_EQ(gpt_oss.attention.rope.type, RopeType::kYarn);
  EXPECT_EQ(gpt_oss.attention.rope.factor, 32);
  EXPECT_EQ(gpt_oss.attention.rope.theta, 150000);
  EXPECT_FALSE(gpt_oss.attention.rope.truncate);
  EXPECT_THAT(gpt_oss.attention.windows, ElementsAre(128, 0, 128));
  EXPECT_EQ(gpt_oss.max_context, 131072);
  EXPECT_FLOAT_EQ(gpt_oss.moe.activation.limit, 7);
}

TEST(ModelConfigTest, EvenLayersOfQwen2MoeSlideBelowMaxWindowLayersIfWindowsAreUsed) {
  const std::string keys =
      R"("model_type": "qwen2_moe", "num_hidden_layers": 6, "sliding_window": 64,
         "max_window_layers": 4)";
  EXPECT_THAT(Parse("{" + keys + R"(, "use_sliding_window": true})").attention.windows,
              ElementsAre(64, 0, 64, 0, 0, 0));
  EXPECT_THAT(Parse("{" + keys + "}").attention.windows, Each(0));
}

TEST(ModelConfigTest, ReadsBothNamesOfTheNumberOfExperts) {
  EXPECT_EQ(Parse(R"({"model_type": "qwen3_moe", "num_local_experts": 12})").moe.num_experts, 12);
  EXPECT_EQ(Parse(R"({"model_type": "qwen3_moe", "num_experts": 12})").moe.num_experts, 12);
  EXPECT_EQ(Parse(R"({"model_type": "mixtral", "num_experts": 12, "num_local_experts": 12})")
                .moe.num_experts,
            12);
}

TEST(ModelConfigTest, SparseStepAndListedLayersDecideWhichLayersHaveExperts) {
  const ModelConfig config = Parse(R"({"model_type": "qwen3_moe", "num_hidden_layers": 8,
                                       "decoder_sparse_step": 2, "mlp_only_layers": [0, 3]})");
  EXPECT_THAT(config.is_moe_layer,
              ElementsAre(false, true, false, false, false, true, false, true));
  EXPECT_EQ(config.num_moe_layers(), 3);
}

// As transformers 5.23.0: 0 experts make every layer dense, and entries that are no layer's index
// are never asked for.
TEST(ModelConfigTest, TakesNoExpertsAndListedLayersThatDoNotExist) {
  const ModelConfig dense = Parse(R"({"model_type": "qwen3_moe", "num_experts": 0})");
  EXPECT_EQ(dense.num_moe_layers(), 0);
  EXPECT_EQ(dense.moe.gate.top_k, 0);
  EXPECT_EQ(CountParameters(dense).expert, 0);
  const ModelConfig listed = Parse(R"({"model_type": "qwen3_moe", "num_hidden_layers": 3,
                                       "mlp_only_layers": [-1, 1, 3, 1000000]})");
  EXPECT_THAT(listed.is_moe_layer, ElementsAre(true, false, true));
}

TEST(ModelConfigTest, TakesTokenIdsThatTheModelDoesNotUse) {
  Parse(R"({"model_type": "qwen3_moe", "vocab_size": 64, "bos_token_id": 1000,
            "pad_token_id": -64})");
}

// As transformers, which warns and goes on: OlmoeConfig(vocab_size=517) writes 50279.
TEST(ModelConfigTest, DropsEndTokensOutsideOfTheVocabularyAndSaysSo) {
  const ModelConfig one = Parse(R"({"model_type": "olmoe", "vocab_size": 517,
                                    "eos_token_id": 50279})");
  EXPECT_THAT(one.eos_token_ids, ElementsAre());
  EXPECT_THAT(one.ignored_keys, ElementsAre("eos_token_id 50279 (vocab_size is 517)"));
  const ModelConfig some = Parse(R"({"model_type": "mixtral", "vocab_size": 64,
                                     "eos_token_id": [64, 63, -1, 0, 63]})");
  EXPECT_THAT(some.eos_token_ids, ElementsAre(0, 63));
  EXPECT_THAT(some.ignored_keys, ElementsAre("eos_token_id -1 (vocab_size is 64)",
                                             "eos_token_id 64 (vocab_size is 64)"));
}

TEST(ModelConfigTest, SwishIsSilu) {
  EXPECT_EQ(Parse(R"({"model_type": "mixtral", "hidden_act": "swish"})").moe.activation.kind,
            Parse(R"({"model_type": "mixtral", "hidden_act": "silu"})").moe.activation.kind);
}

TEST(ModelConfigTest, AllLayersOfQwen3MoeSlideOrNone) {
  const std::string keys = R"("model_type": "qwen3_moe", "num_hidden_layers": 2)";
  EXPECT_THAT(Parse("{" + keys + R"(, "use_sliding_window": true, "sliding_window": 9,
                      "layer_types": ["sliding_attention", "sliding_attention"]})")
                  .attention.windows,
              Each(9));
  EXPECT_THAT(Parse("{" + keys + R"(, "layer_types": ["full_attention", "full_attention"],
                      "sliding_window": 9})")
                  .attention.windows,
              Each(0));
}

TEST(ModelConfigTest, AttentionBiasIsOnAllFourProjections) {
  const ModelConfig config = Parse(R"({"model_type": "qwen3_moe", "attention_bias": true})");
  EXPECT_TRUE(config.attention.qkv_bias);
  EXPECT_TRUE(config.attention.o_bias);
}

TEST(ModelConfigTest, IgnoresASlidingWindowThatIsNotUsedAndKeysItDoesNotKnow) {
  Parse(R"({"model_type": "qwen3_moe", "use_sliding_window": false, "sliding_window": 4096,
            "max_window_layers": 28, "something_new": {"a": [1, 2]}, "head_dim": null,
            "rope_scaling": null, "mlp_only_layers": null, "eos_token_id": null})");
}

TEST(ModelConfigTest, TheLargestSizesDoNotOverflow) {
  const ModelConfig config = Parse(R"({"model_type": "qwen3_moe", "vocab_size": 8388608,
      "hidden_size": 131072, "num_hidden_layers": 1024, "num_attention_heads": 1024,
      "num_key_value_heads": 1024, "head_dim": 1024, "intermediate_size": 524288,
      "moe_intermediate_size": 524288, "num_experts": 8192, "num_experts_per_tok": 8192,
      "attention_bias": true, "max_position_embeddings": 16777216})");
  const double expert = 1024.0 * 8192 * 3 * 131072 * 524288;
  const ParameterCount count = CountParameters(config);
  EXPECT_DOUBLE_EQ(static_cast<double>(count.expert), expert);
  EXPECT_GT(count.dense, 0);
  EXPECT_LT(static_cast<double>(count.total()) * 4, 0x1p63);  // bytes as f32
}

TEST(CountParametersTest, EqualsTheCountOfTheDemonstrationModelsFile) {
  const ParameterCount count = CountParameters(Parse(kDemo));
  EXPECT_EQ(count.total(), 11'693'696);
  EXPECT_EQ(count.expert, 6 * 16 * 3 * 256 * 128);
  EXPECT_EQ(count.active, 3'436'160);
}

}  // namespace
}  // namespace gatehouse
