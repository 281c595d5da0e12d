// Qwen3-MoE. Omitted keys take the defaults of transformers' Qwen3MoeConfig.
#include <cmath>

#include "absl/strings/str_format.h"
#include "engine/model/families/families.h"

namespace gatehouse {
namespace {

TensorNames Names() {
  const std::string layer = "model.layers.{l}.";
  const std::string expert = layer + "mlp.experts.{e}.";
  TensorNames names;
  names.embedding = "model.embed_tokens.weight";
  names.final_norm = "model.norm.weight";
  names.lm_head = "lm_head.weight";
  names.attention_norm = layer + "input_layernorm.weight";
  names.q = layer + "self_attn.q_proj";
  names.k = layer + "self_attn.k_proj";
  names.v = layer + "self_attn.v_proj";
  names.o = layer + "self_attn.o_proj";
  names.q_norm = layer + "self_attn.q_norm.weight";
  names.k_norm = layer + "self_attn.k_norm.weight";
  names.ffn_norm = layer + "post_attention_layernorm.weight";
  names.dense_gate = layer + "mlp.gate_proj.weight";
  names.dense_up = layer + "mlp.up_proj.weight";
  names.dense_down = layer + "mlp.down_proj.weight";
  names.router = layer + "mlp.gate.weight";
  names.expert_gate = expert + "gate_proj.weight";
  names.expert_up = expert + "up_proj.weight";
  names.expert_down = expert + "down_proj.weight";
  return names;
}

AttentionConfig ReadAttention(JsonFields& fields, int32_t hidden_size, int64_t max_positions) {
  AttentionConfig attention;
  attention.num_heads = fields.Int("num_attention_heads", 32, {1, kMaxHeads});
  attention.num_kv_heads = fields.Int("num_key_value_heads", 4, {1, kMaxHeads});
  if (attention.num_heads % attention.num_kv_heads != 0) {
    fields.Refuse("num_key_value_heads",
                  absl::StrFormat("a divisor of num_attention_heads (%d)", attention.num_heads));
  }
  attention.head_dim =
      fields.OptionalInt("head_dim", {2, kMaxHeadDim}).value_or(hidden_size / attention.num_heads);
  if (attention.head_dim < 2 || attention.head_dim > kMaxHeadDim || attention.head_dim % 2 != 0) {
    fields.Refuse("head_dim", absl::StrFormat("an even number from 2 to %d (without head_dim, "
                                              "hidden_size / num_attention_heads is)",
                                              kMaxHeadDim));
    attention.head_dim = 2;
  }
  attention.qkv_bias = fields.Bool("attention_bias", false);
  attention.o_bias = attention.qkv_bias;
  attention.qk_norm = QkNorm::kPerHead;
  attention.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(attention.head_dim)));
  attention.rope =
      ReadRopeConfig(fields, {.head_dim = attention.head_dim, .max_positions = max_positions});
  if (fields.Bool("use_sliding_window", false)) {
    fields.Refuse("use_sliding_window", "false: attention windows are not served");
  }
  return attention;
}

MoeConfig ReadMoe(JsonFields& fields) {
  MoeConfig moe;
  // transformers 5 writes num_local_experts, published files say num_experts.
  const char* num_experts_key = fields.Has("num_local_experts") && !fields.Has("num_experts")
                                    ? "num_local_experts"
                                    : "num_experts";
  moe.num_experts = fields.Int(num_experts_key, 128, {0, kMaxExperts});  // 0: every layer is dense
  if (moe.num_experts == 0) return moe;
  moe.gate.top_k = fields.Int("num_experts_per_tok", 8, {1, kMaxExperts});
  if (moe.gate.top_k > moe.num_experts) {
    fields.Refuse("num_experts_per_tok",
                  absl::StrFormat("at most %s (%d)", num_experts_key, moe.num_experts));
  }
  moe.intermediate_size = fields.Int("moe_intermediate_size", 768, {1, kMaxIntermediateSize});
  moe.gate.renormalise = fields.Bool("norm_topk_prob", false);
  return moe;
}

std::vector<bool> ReadLayerKinds(JsonFields& fields, int32_t num_layers, bool has_experts) {
  const int32_t step = fields.Int("decoder_sparse_step", 1, {1, kMaxLayers});
  std::vector<bool> is_moe(num_layers);
  for (int32_t l = 0; l < num_layers; ++l) is_moe[l] = has_experts && (l + 1) % step == 0;
  // transformers asks of each layer whether it stands here; what is no layer's index means nothing.
  for (const int32_t l : fields.IntList("mlp_only_layers", {INT32_MIN, INT32_MAX})) {
    if (l >= 0 && l < num_layers) is_moe[l] = false;
  }
  return is_moe;
}

// Keys that change what the model computes in a way that this family does not do here.
void RefuseUnserved(JsonFields& fields) {
  if (fields.String("hidden_act", "silu") != "silu") fields.Refuse("hidden_act", "\"silu\"");
  if (fields.Has("per_layer_config")) fields.Refuse("per_layer_config", "none: layers are alike");
  for (const char* key : {"dtype", "torch_dtype"}) {  // tensors say their own
    const std::string dtype = fields.Has(key) ? fields.String(key, "") : "float32";
    if (dtype != "float32" && dtype != "bfloat16" && dtype != "float16") {
      fields.Refuse(key, "float32, bfloat16 or float16");
    }
  }
}

}  // namespace

ModelConfig ReadQwen3MoeConfig(JsonFields& fields) {
  ModelConfig config;
  config.vocab_size = fields.Int("vocab_size", 151936, {1, kMaxVocabSize});
  config.hidden_size = fields.Int("hidden_size", 2048, {1, kMaxHiddenSize});
  config.num_layers = fields.Int("num_hidden_layers", 24, {1, kMaxLayers});
  config.moe = ReadMoe(fields);
  config.is_moe_layer = ReadLayerKinds(fields, config.num_layers, config.moe.num_experts > 0);
  config.dense_intermediate_size = fields.Int("intermediate_size", 6144, {1, kMaxIntermediateSize});
  config.norm_eps = static_cast<float>(fields.Number("rms_norm_eps", 1e-6, {1e-12, 1}));
  config.tie_word_embeddings = fields.Bool("tie_word_embeddings", false);
  const int32_t max_positions = fields.Int("max_position_embeddings", 32768, {1, kMaxPositions});
  config.attention = ReadAttention(fields, config.hidden_size, max_positions);
  config.max_context = MaxContext(config.attention.rope, max_positions);
  config.eos_token_ids =
      SortedDistinct(fields.IntOrIntList("eos_token_id", {0, config.vocab_size - 1}));
  // Nothing here reads it; transformers builds no embedding table with another, but takes any BOS.
  fields.OptionalInt("pad_token_id", {-int64_t{config.vocab_size}, config.vocab_size - 1});
  RefuseUnserved(fields);
  config.tensor_names = Names();
  return config;
}

}  // namespace gatehouse
