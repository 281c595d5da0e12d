#include "engine/model/families/common.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"

namespace gatehouse {
namespace {

// Keys that change what the model computes in a way that no family does here.
void RefuseUnserved(JsonFields& fields) {
  const std::string activation = fields.String("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") {  // two names of one function
    fields.Refuse("hidden_act", "\"silu\" or \"swish\"");
  }
  if (fields.Has("per_layer_config")) fields.Refuse("per_layer_config", "none: layers are alike");
  for (const char* key : {"dtype", "torch_dtype"}) {  // tensors say their own
    const std::string dtype = fields.Has(key) ? fields.String(key, "") : "float32";
    if (dtype != "float32" && dtype != "bfloat16" && dtype != "float16") {
      fields.Refuse(key, "float32, bfloat16 or float16");
    }
  }
}

int32_t ReadKvHeads(JsonFields& fields, const HeadDefaults& defaults, int32_t num_heads) {
  const char* key = "num_key_value_heads";
  if (fields.IsNull(key)) return num_heads;
  const int32_t num_kv_heads =
      fields.Int(key, defaults.num_kv_heads.value_or(num_heads), {1, kMaxHeads});
  if (num_heads % num_kv_heads != 0) {
    fields.Refuse(key, absl::StrFormat("a divisor of num_attention_heads (%d)", num_heads));
  }
  return num_kv_heads;
}

int32_t ReadHeadDim(JsonFields& fields, const HeadDefaults& defaults, int32_t unless_given) {
  const int32_t head_dim = fields.IsNull("head_dim")
                               ? unless_given
                               : fields.OptionalInt("head_dim", {2, kMaxHeadDim})
                                     .value_or(defaults.head_dim.value_or(unless_given));
  if (head_dim >= 2 && head_dim <= kMaxHeadDim && head_dim % 2 == 0) return head_dim;
  fields.Refuse("head_dim", absl::StrFormat("an even number from 2 to %d (without head_dim, "
                                            "hidden_size / num_attention_heads is)",
                                            kMaxHeadDim));
  return 2;
}

}  // namespace

void ReadSizes(JsonFields& fields, const SizeDefaults& defaults, ModelConfig& config) {
  config.vocab_size = fields.Int("vocab_size", defaults.vocab_size, {1, kMaxVocabSize});
  config.hidden_size = fields.Int("hidden_size", defaults.hidden_size, {1, kMaxHiddenSize});
  config.num_layers = fields.Int("num_hidden_layers", defaults.num_layers, {1, kMaxLayers});
  config.norm_eps =
      static_cast<float>(fields.Number("rms_norm_eps", defaults.norm_eps, {1e-12, 1}));
  config.tie_word_embeddings = fields.Bool("tie_word_embeddings", false);
  config.eos_token_ids = ReadEosTokenIds(fields, config.vocab_size, config.ignored_keys);
  const bool eos_is_absent = !fields.Has("eos_token_id") && !fields.IsNull("eos_token_id");
  if (eos_is_absent && defaults.eos_token_id.value_or(INT32_MAX) < config.vocab_size) {
    config.eos_token_ids = {*defaults.eos_token_id};
  }
  // Nothing here reads it; transformers builds no embedding table with another, but takes any BOS.
  fields.OptionalInt("pad_token_id", {-int64_t{config.vocab_size}, config.vocab_size - 1});
  RefuseUnserved(fields);
}

void ReadHeads(JsonFields& fields, const HeadDefaults& defaults, ModelConfig& config) {
  AttentionConfig& attention = config.attention;
  attention.num_heads = fields.Int("num_attention_heads", defaults.num_heads, {1, kMaxHeads});
  attention.num_kv_heads = ReadKvHeads(fields, defaults, attention.num_heads);
  attention.head_dim = ReadHeadDim(fields, defaults, config.hidden_size / attention.num_heads);
  attention.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(attention.head_dim)));
  attention.windows.assign(config.num_layers, 0);
  const int32_t max_positions =
      fields.Int("max_position_embeddings", defaults.max_positions, {1, kMaxPositions});
  attention.rope = ReadRopeConfig(fields, {.head_dim = attention.head_dim,
                                           .max_positions = max_positions,
                                           .theta = defaults.rope_theta,
                                           .unless_given = defaults.rope_unless_given});
  config.max_context = MaxContext(attention.rope, max_positions);
}

const char* ExpertCountKey(JsonFields& fields, const char* key, const char* alias) {
  if (!fields.Has(alias)) return key;
  if (!fields.Has(key)) return alias;
  const nlohmann::json& other = *fields.Find(alias);
  if (*fields.Find(key) != other) {
    fields.Refuse(key, absl::StrFormat("what %s says (%s)", alias, Printable(other.dump())));
  }
  return key;
}

void ReadExperts(JsonFields& fields, const ExpertDefaults& defaults, ModelConfig& config) {
  MoeConfig& moe = config.moe;
  const char* key = ExpertCountKey(fields, "num_experts", "num_local_experts");
  moe.num_experts = fields.Int(key, defaults.num_experts, {defaults.least_experts, kMaxExperts});
  if (moe.num_experts == 0) return;
  moe.gate.top_k = fields.Int("num_experts_per_tok", defaults.top_k, {1, kMaxExperts});
  if (moe.gate.top_k > moe.num_experts) {
    fields.Refuse("num_experts_per_tok", absl::StrFormat("at most %s (%d)", key, moe.num_experts));
  }
  moe.intermediate_size =
      fields.Int(defaults.intermediate_key, defaults.intermediate_size, {1, kMaxIntermediateSize});
}

std::vector<bool> ReadSparseSteps(JsonFields& fields, const ModelConfig& config) {
  const int32_t step = fields.Int("decoder_sparse_step", 1, {1, kMaxLayers});
  std::vector<bool> is_moe(config.num_layers);
  for (int32_t l = 0; l < config.num_layers; ++l) {
    is_moe[l] = config.moe.num_experts > 0 && (l + 1) % step == 0;
  }
  // transformers asks of each layer whether it stands here; what is no layer's index means nothing.
  for (const int32_t l : fields.IntList("mlp_only_layers", {INT32_MIN, INT32_MAX})) {
    if (l >= 0 && l < config.num_layers) is_moe[l] = false;
  }
  return is_moe;
}

std::vector<bool> ReadSlidingLayers(JsonFields& fields, int32_t num_layers,
                                    std::vector<bool> unless_given) {
  if (!fields.Has("layer_types")) return unless_given;
  const std::vector<std::string> types = fields.StringList("layer_types");
  if (static_cast<int32_t>(types.size()) != num_layers) {
    fields.Refuse("layer_types", absl::StrFormat("one for each of %d layers", num_layers));
    return unless_given;
  }
  std::vector<bool> slides;
  for (const std::string& type : types) {
    if (type != "sliding_attention" && type != "full_attention") {
      fields.Refuse("layer_types", "sliding_attention and full_attention alone");
    }
    slides.push_back(type == "sliding_attention");
  }
  return slides;
}

void SetWindows(JsonFields& fields, std::optional<int32_t> fallback,
                const std::vector<bool>& slides, ModelConfig& config) {
  const char* key = "sliding_window";
  if (std::find(slides.begin(), slides.end(), true) == slides.end()) return;
  if (fields.IsNull(key)) fallback.reset();
  const int32_t window = fields.OptionalInt(key, {1, kMaxPositions}).value_or(fallback.value_or(0));
  if (window == 0) {
    fields.Refuse(key, absl::StrFormat("an integer from 1 to %d, as layers slide", kMaxPositions));
  }
  for (int32_t l = 0; l < config.num_layers; ++l) {
    config.attention.windows[l] = slides[l] ? window : 0;
  }
}

void RefuseWindows(JsonFields& fields, const ModelConfig& config) {
  if (fields.Has("sliding_window")) {
    fields.Refuse("sliding_window", "null: this family has no windows");
  }
  const std::vector<bool> none(config.num_layers, false);
  if (ReadSlidingLayers(fields, config.num_layers, none) != none) {
    fields.Refuse("layer_types", "full_attention alone: this family has no windows");
  }
}

TensorNames CommonNames() {
  const std::string layer = "model.layers.{l}.";
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
  return names;
}

void NameSeparateExperts(TensorNames& names) {
  const std::string expert = "model.layers.{l}.mlp.experts.{e}.";
  names.router = "model.layers.{l}.mlp.gate.weight";
  names.expert_gate = expert + "gate_proj.weight";
  names.expert_up = expert + "up_proj.weight";
  names.expert_down = expert + "down_proj.weight";
}

}  // namespace gatehouse
