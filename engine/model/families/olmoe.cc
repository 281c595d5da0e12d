// OLMoE: norms over the whole of q and of k, then a limit on q, k and v.
#include "engine/model/families/common.h"
#include "engine/model/families/families.h"

namespace gatehouse {

ModelConfig ReadOlmoeConfig(JsonFields& fields) {
  ModelConfig config;
  ReadSizes(fields,
            {.vocab_size = 50304,
             .hidden_size = 2048,
             .num_layers = 16,
             .norm_eps = 1e-5,
             .eos_token_id = 50279},
            config);
  ReadHeads(fields, {.num_heads = 16, .max_positions = 4096}, config);
  config.attention.qkv_bias = fields.Bool("attention_bias", false);
  config.attention.o_bias = config.attention.qkv_bias;
  config.attention.qk_norm = QkNorm::kFullWidth;
  config.attention.clip_qkv =
      static_cast<float>(fields.OptionalNumber("clip_qkv", {1e-6, 1e6}).value_or(0));
  RefuseWindows(fields, config);
  ReadExperts(fields, {.num_experts = 64, .top_k = 8, .intermediate_size = 2048}, config);
  config.moe.gate.renormalise = fields.Bool("norm_topk_prob", false);
  config.is_moe_layer.assign(config.num_layers, true);
  config.tensor_names = CommonNames();
  NameSeparateExperts(config.tensor_names);
  return config;
}

}  // namespace gatehouse
