// Mixtral: experts on every layer, one window for all of them or none.
#include "engine/model/families/common.h"
#include "engine/model/families/families.h"

namespace gatehouse {

ModelConfig ReadMixtralConfig(JsonFields& fields) {
  ModelConfig config;
  ReadSizes(fields,
            {.vocab_size = 32000,
             .hidden_size = 4096,
             .num_layers = 32,
             .norm_eps = 1e-5,
             .eos_token_id = 2},
            config);
  ReadHeads(fields,
            {.num_heads = 32, .num_kv_heads = 8, .max_positions = 131072, .rope_theta = 1e6},
            config);
  const std::vector<bool> slides(config.num_layers, fields.Has("sliding_window"));
  if (ReadSlidingLayers(fields, config.num_layers, slides) != slides) {
    fields.Refuse("layer_types", "what sliding_window says of all layers");
  }
  SetWindows(fields, std::nullopt, slides, config);
  ReadExperts(fields, {.num_experts = 8, .top_k = 2, .intermediate_size = 14336}, config);
  config.moe.gate.renormalise = true;
  config.is_moe_layer.assign(config.num_layers, true);
  TensorNames& names = config.tensor_names;
  names = CommonNames();
  const std::string moe = "model.layers.{l}.block_sparse_moe.";
  names.router = moe + "gate.weight";
  names.expert_gate = moe + "experts.{e}.w1.weight";
  names.expert_up = moe + "experts.{e}.w3.weight";
  names.expert_down = moe + "experts.{e}.w2.weight";
  return config;
}

}  // namespace gatehouse
