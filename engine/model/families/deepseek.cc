// DeepSeek-V2 and DeepSeek-V3: latent attention, the first layers dense, shared experts, experts
// chosen within groups. V2 weighs by softmax, V3 by a sigmoid with a bias that sways the choice.
#include <cmath>

#include "absl/strings/str_format.h"
#include "engine/model/families/common.h"
#include "engine/model/families/families.h"

namespace gatehouse {
namespace {

struct LatentDefaults {
  int32_t num_heads = 0;
  std::optional<int32_t> num_kv_heads;  // absent: num_heads
  int32_t max_positions = 0;
};

// Of q times k: yarn's share of it is not among the cosines and sines.
float AttentionScale(const RopeConfig& rope, int32_t head_dim) {
  double scale = 1 / std::sqrt(static_cast<double>(head_dim));
  const double weight = rope.mscale_all_dim.value_or(0);
  if (rope.type != RopeType::kDefault && weight != 0 && rope.factor > 1) {
    const double mscale = 0.1 * weight * std::log(rope.factor) + 1;
    scale *= mscale * mscale;
  }
  return static_cast<float>(scale);
}

void ReadLatentAttention(JsonFields& fields, const LatentDefaults& defaults, ModelConfig& config) {
  AttentionConfig& attention = config.attention;
  LatentConfig& latent = attention.latent;
  attention.num_heads = fields.Int("num_attention_heads", defaults.num_heads, {1, kMaxHeads});
  attention.num_kv_heads = attention.num_heads;
  const char* kv_key = "num_key_value_heads";
  if (!fields.IsNull(kv_key) &&
      fields.Int(kv_key, defaults.num_kv_heads.value_or(attention.num_heads), {1, kMaxHeads}) !=
          attention.num_heads) {
    fields.Refuse(kv_key, absl::StrFormat("num_attention_heads (%d): all heads share one latent",
                                          attention.num_heads));
  }
  latent.kv_rank = fields.Int("kv_lora_rank", 512, {1, kMaxLatentRank});
  if (!fields.IsNull("q_lora_rank")) {
    latent.q_rank = fields.Int("q_lora_rank", 1536, {1, kMaxHiddenSize});
  }
  latent.nope_dim = fields.Int("qk_nope_head_dim", 128, {1, kMaxHeadDim});
  latent.rope_dim = fields.Int("qk_rope_head_dim", 64, {2, kMaxHeadDim});
  latent.value_dim = fields.Int("v_head_dim", 128, {1, kMaxHeadDim});
  if (latent.rope_dim % 2 != 0) {
    fields.Refuse("qk_rope_head_dim", "an even number");
    latent.rope_dim = 2;
  }
  attention.head_dim = latent.nope_dim + latent.rope_dim;
  fields.OptionalInt("head_dim", {1, kMaxHeadDim});  // transformers writes rope_dim there
  attention.qkv_bias = fields.Bool("attention_bias", false);
  attention.o_bias = attention.qkv_bias;
  attention.windows.assign(config.num_layers, 0);
  RefuseWindows(fields, config);
  const int32_t max_positions =
      fields.Int("max_position_embeddings", defaults.max_positions, {1, kMaxPositions});
  attention.rope =
      ReadRopeConfig(fields, {.head_dim = latent.rope_dim, .max_positions = max_positions});
  attention.scale = AttentionScale(attention.rope, attention.head_dim);
  config.max_context = MaxContext(attention.rope, max_positions);
}

struct MoeDefaults {
  const char* other_experts_key = nullptr;  // transformers knows n_routed_experts by it, too
  int32_t num_experts = 0;
  std::optional<int32_t> top_k;
  int32_t intermediate_size = 0;
  int32_t num_shared = 0;
  int32_t num_dense_layers = 0;
  double scale = 1;
};

void ReadMoe(JsonFields& fields, const MoeDefaults& defaults, ModelConfig& config) {
  MoeConfig& moe = config.moe;
  const char* key = ExpertCountKey(fields, "n_routed_experts", defaults.other_experts_key);
  moe.num_experts = fields.Int(key, defaults.num_experts, {1, kMaxExperts});
  moe.gate.top_k = fields.Int("num_experts_per_tok", defaults.top_k, {1, kMaxExperts});
  if (moe.gate.top_k > moe.num_experts) {
    fields.Refuse("num_experts_per_tok", absl::StrFormat("at most %s (%d)", key, moe.num_experts));
  }
  moe.gate.scale =
      static_cast<float>(fields.Number("routed_scaling_factor", defaults.scale, {0, 1e6}));
  moe.intermediate_size =
      fields.Int("moe_intermediate_size", defaults.intermediate_size, {1, kMaxIntermediateSize});
  const int32_t num_shared = fields.Int("n_shared_experts", defaults.num_shared, {1, kMaxExperts});
  const int64_t shared_size = int64_t{num_shared} * moe.intermediate_size;
  if (shared_size > kMaxIntermediateSize) {
    fields.Refuse("n_shared_experts",
                  absl::StrFormat("at most %d moe_intermediate_size in all", kMaxIntermediateSize));
  } else {
    moe.shared_intermediate_size = static_cast<int32_t>(shared_size);
  }
  const int32_t num_dense =
      fields.Int("first_k_dense_replace", defaults.num_dense_layers, {0, INT32_MAX});
  for (int32_t l = 0; l < config.num_layers; ++l) config.is_moe_layer.push_back(l >= num_dense);
}

// A score that asks for more than one expert of a group needs groups of that many.
void ReadGroups(JsonFields& fields, std::optional<int32_t> num_groups,
                std::optional<int32_t> num_open_groups, ModelConfig& config) {
  GateRecipe& gate = config.moe.gate;
  const int32_t num_experts = config.moe.num_experts;
  gate.num_groups = fields.Int("n_group", num_groups, {1, kMaxExperts});
  gate.num_open_groups = fields.Int("topk_group", num_open_groups, {1, kMaxExperts});
  const int32_t least_size = gate.group_score == GroupScore::kSumOfTwoLargest ? 2 : 1;
  if (num_experts % gate.num_groups != 0 || num_experts / gate.num_groups < least_size) {
    fields.Refuse("n_group", absl::StrFormat("a divisor of n_routed_experts (%d) that leaves "
                                             "groups of at least %d",
                                             num_experts, least_size));
    return;
  }
  if (gate.num_open_groups > gate.num_groups) {
    fields.Refuse("topk_group", absl::StrFormat("at most n_group (%d)", gate.num_groups));
  }
  const int64_t num_open = int64_t{num_experts / gate.num_groups} * gate.num_open_groups;
  if (gate.top_k > num_open) {
    fields.Refuse("num_experts_per_tok",
                  absl::StrFormat("at most the %d experts of topk_group groups", num_open));
  }
}

void RefuseScoring(JsonFields& fields, const char* served) {
  if (fields.Has("scoring_func") && fields.String("scoring_func", served) != served) {
    fields.Refuse("scoring_func", absl::StrFormat("\"%s\" in this family", served));
  }
}

TensorNames Names(const LatentConfig& latent) {
  TensorNames names = CommonNames();
  NameSeparateExperts(names);
  const std::string attention = "model.layers.{l}.self_attn.";
  names.k.clear();
  names.v.clear();
  if (latent.q_rank > 0) {
    names.q_down = attention + "q_a_proj";
    names.q_latent_norm = attention + "q_a_layernorm.weight";
    names.q = attention + "q_b_proj";
  }
  names.kv_down = attention + "kv_a_proj_with_mqa";
  names.latent_norm = attention + "kv_a_layernorm.weight";
  names.kv_up = attention + "kv_b_proj.weight";
  const std::string shared = "model.layers.{l}.mlp.shared_experts.";
  names.shared_gate = shared + "gate_proj.weight";
  names.shared_up = shared + "up_proj.weight";
  names.shared_down = shared + "down_proj.weight";
  return names;
}

}  // namespace

ModelConfig ReadDeepseekV2Config(JsonFields& fields) {
  ModelConfig config;
  ReadSizes(fields,
            {.vocab_size = 102400, .hidden_size = 4096, .num_layers = 32, .eos_token_id = 2},
            config);
  ReadLatentAttention(fields, {.num_heads = 32, .max_positions = 2048}, config);
  config.attention.latent.rotates_pairs = true;
  config.dense_intermediate_size =
      fields.Int("intermediate_size", 11008, {1, kMaxIntermediateSize});
  ReadMoe(fields,
          {.other_experts_key = "num_experts",
           .num_experts = 64,
           .intermediate_size = 1407,
           .num_shared = 2},
          config);
  const std::string method = fields.String("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    ReadGroups(fields, std::nullopt, std::nullopt, config);
  } else if (method != "greedy") {
    fields.Refuse("topk_method", "greedy or group_limited_greedy");
  }
  // transformers never reads it; the published code divides by the sum and then does not scale.
  if (fields.Has("norm_topk_prob") && fields.Bool("norm_topk_prob", false)) {
    fields.Refuse("norm_topk_prob", "false: this family does not renormalise");
  }
  if (fields.Bool("mlp_bias", false)) fields.Refuse("mlp_bias", "false");
  RefuseScoring(fields, "softmax");
  config.tensor_names = Names(config.attention.latent);
  return config;
}

ModelConfig ReadDeepseekV3Config(JsonFields& fields) {
  ModelConfig config;
  ReadSizes(fields,
            {.vocab_size = 129280, .hidden_size = 7168, .num_layers = 61, .eos_token_id = 1},
            config);
  ReadLatentAttention(fields, {.num_heads = 128, .num_kv_heads = 128, .max_positions = 4096},
                      config);
  config.attention.latent.rotates_pairs = fields.Bool("rope_interleave", true);
  config.dense_intermediate_size =
      fields.Int("intermediate_size", 18432, {1, kMaxIntermediateSize});
  ReadMoe(fields,
          {.other_experts_key = "num_local_experts",
           .num_experts = 256,
           .top_k = 8,
           .intermediate_size = 2048,
           .num_shared = 1,
           .num_dense_layers = 3,
           .scale = 2.5},
          config);
  GateRecipe& gate = config.moe.gate;
  gate.score = GateScore::kSigmoid;
  gate.group_score = GroupScore::kSumOfTwoLargest;
  gate.renormalise = fields.Bool("norm_topk_prob", true);
  ReadGroups(fields, 8, 4, config);
  RefuseScoring(fields, "sigmoid");
  config.tensor_names = Names(config.attention.latent);
  config.tensor_names.choice_bias = "model.layers.{l}.mlp.gate.e_score_correction_bias";
  return config;
}

}  // namespace gatehouse
