// Granite-MoE: factors on embedding, residual, attention and logits; experts fused in one tensor.
#include "engine/model/families/common.h"
#include "engine/model/families/families.h"

namespace gatehouse {

ModelConfig ReadGraniteMoeConfig(JsonFields& fields) {
  ModelConfig config;
  ReadSizes(fields, {.vocab_size = 32000, .hidden_size = 4096, .num_layers = 32, .eos_token_id = 2},
            config);
  ReadHeads(fields, {.num_heads = 32, .max_positions = 2048}, config);
  config.attention.qkv_bias = fields.Bool("attention_bias", false);
  config.attention.o_bias = config.attention.qkv_bias;
  const auto read_factor = [&](const char* key, double least) {
    return static_cast<float>(fields.Number(key, 1, {least, 1e6}));
  };
  config.attention.scale = read_factor("attention_multiplier", -1e6);
  config.embedding_scale = read_factor("embedding_multiplier", -1e6);
  config.residual_scale = read_factor("residual_multiplier", -1e6);
  config.logit_scale = 1 / read_factor("logits_scaling", 1e-6);
  RefuseWindows(fields, config);
  ReadExperts(fields, {.num_experts = 8, .top_k = 2, .intermediate_size = 11008}, config);
  config.moe.gate.score = GateScore::kSoftmaxOfChosen;
  config.is_moe_layer.assign(config.num_layers, true);
  TensorNames& names = config.tensor_names;
  names = CommonNames();
  const std::string moe = "model.layers.{l}.block_sparse_moe.";
  names.router = moe + "router.layer.weight";
  names.expert_layout = ExpertLayout::kFused;
  names.expert_gate_up = moe + "input_linear.weight";
  names.expert_down = moe + "output_linear.weight";
  return config;
}

}  // namespace gatehouse
