// Qwen2-MoE: a shared expert weighted by a sigmoid, dense layers mixed in, windows on some layers.
#include "engine/model/families/common.h"
#include "engine/model/families/families.h"

namespace gatehouse {
namespace {

// transformers 5 lets even layers below max_window_layers slide; what Qwen wrote of it once said
// the others.
void ReadWindows(JsonFields& fields, ModelConfig& config) {
  const bool uses_windows = fields.Bool("use_sliding_window", false);
  const int32_t max_window_layers = fields.Int("max_window_layers", 28, {0, INT32_MAX});
  std::vector<bool> slides(config.num_layers);
  for (int32_t l = 0; l < config.num_layers; ++l) {
    slides[l] = uses_windows && l % 2 == 0 && l < max_window_layers;
  }
  slides = ReadSlidingLayers(fields, config.num_layers, slides);
  if (uses_windows) {
    SetWindows(fields, 4096, slides, config);
  } else if (slides != std::vector<bool>(config.num_layers, false)) {
    fields.Refuse("layer_types", "full_attention alone, as use_sliding_window is false");
  }
}

}  // namespace

ModelConfig ReadQwen2MoeConfig(JsonFields& fields) {
  ModelConfig config;
  ReadSizes(fields, {.vocab_size = 151936, .hidden_size = 2048, .num_layers = 24}, config);
  ReadHeads(fields, {.num_heads = 16, .num_kv_heads = 16, .max_positions = 32768}, config);
  config.attention.qkv_bias = fields.Bool("qkv_bias", true);
  ReadWindows(fields, config);
  ReadExperts(fields,
              {.num_experts = 60,
               .least_experts = 0,  // every layer is dense
               .top_k = 4,
               .intermediate_key = "moe_intermediate_size",
               .intermediate_size = 1408},
              config);
  config.moe.gate.renormalise = fields.Bool("norm_topk_prob", false);
  config.moe.shared_intermediate_size =
      fields.Int("shared_expert_intermediate_size", 5632, {1, kMaxIntermediateSize});
  config.is_moe_layer = ReadSparseSteps(fields, config);
  config.dense_intermediate_size = fields.Int("intermediate_size", 5632, {1, kMaxIntermediateSize});
  TensorNames& names = config.tensor_names;
  names = CommonNames();
  NameSeparateExperts(names);
  const std::string mlp = "model.layers.{l}.mlp.";
  names.shared_gate = mlp + "shared_expert.gate_proj.weight";
  names.shared_up = mlp + "shared_expert.up_proj.weight";
  names.shared_down = mlp + "shared_expert.down_proj.weight";
  names.shared_scale = mlp + "shared_expert_gate.weight";
  return config;
}

}  // namespace gatehouse
