// Qwen3-MoE: a norm of each head, dense layers mixed in.
#include "engine/model/families/common.h"
#include "engine/model/families/families.h"

namespace gatehouse {

ModelConfig ReadQwen3MoeConfig(JsonFields& fields) {
  ModelConfig config;
  ReadSizes(fields, {.vocab_size = 151936, .hidden_size = 2048, .num_layers = 24}, config);
  ReadHeads(fields, {.num_heads = 32, .num_kv_heads = 4, .max_positions = 32768}, config);
  config.attention.qkv_bias = fields.Bool("attention_bias", false);
  config.attention.o_bias = config.attention.qkv_bias;
  config.attention.qk_norm = QkNorm::kPerHead;
  const bool uses_windows =
      fields.Bool("use_sliding_window", false) && !fields.IsNull("sliding_window");
  const std::vector<bool> slides(config.num_layers, uses_windows);
  if (ReadSlidingLayers(fields, config.num_layers, slides) != slides) {
    fields.Refuse("layer_types", "what use_sliding_window and sliding_window say of all layers");
  }
  SetWindows(fields, 4096, slides, config);
  ReadExperts(fields,
              {.num_experts = 128,
               .least_experts = 0,  // every layer is dense
               .top_k = 8,
               .intermediate_key = "moe_intermediate_size",
               .intermediate_size = 768},
              config);
  config.moe.gate.renormalise = fields.Bool("norm_topk_prob", false);
  config.is_moe_layer = ReadSparseSteps(fields, config);
  config.dense_intermediate_size = fields.Int("intermediate_size", 6144, {1, kMaxIntermediateSize});
  config.tensor_names = CommonNames();
  NameSeparateExperts(config.tensor_names);
  return config;
}

}  // namespace gatehouse
