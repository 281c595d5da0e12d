// gpt-oss in bf16 or f32: attention sinks, a window on every other layer, biases everywhere,
// experts of a clamped SwiGLU fused and interleaved in one tensor.
#include "engine/model/families/common.h"
#include "engine/model/families/families.h"

namespace gatehouse {
namespace {

// A file without a word on rope does not mean plain rope here.
RopeConfig YarnUnlessGiven() {
  RopeConfig rope;
  rope.type = RopeType::kYarn;
  rope.factor = 32;
  rope.original_max_positions = 4096;
  rope.truncate = false;
  return rope;
}

}  // namespace

ModelConfig ReadGptOssConfig(JsonFields& fields) {
  ModelConfig config;
  ReadSizes(fields, {.vocab_size = 201088, .hidden_size = 2880, .num_layers = 36, .norm_eps = 1e-5},
            config);
  ReadHeads(fields,
            {.num_heads = 64,
             .num_kv_heads = 8,
             .head_dim = 64,
             .max_positions = 131072,
             .rope_theta = 150000,
             .rope_unless_given = YarnUnlessGiven()},
            config);
  config.attention.qkv_bias = fields.Bool("attention_bias", true);
  config.attention.o_bias = config.attention.qkv_bias;
  std::vector<bool> slides(config.num_layers);
  for (int32_t l = 0; l < config.num_layers; ++l) slides[l] = l % 2 == 0;
  SetWindows(fields, 128, ReadSlidingLayers(fields, config.num_layers, slides), config);
  ReadExperts(fields, {.num_experts = 128, .top_k = 4, .intermediate_size = 2880}, config);
  config.moe.gate.score = GateScore::kSoftmaxOfChosen;
  config.moe.activation = {
      .kind = ExpertActivation::kClampedSwiglu,
      .alpha = static_cast<float>(fields.Number("swiglu_alpha", 1.702, {-1e3, 1e3})),
      .limit = static_cast<float>(fields.Number("swiglu_limit", 7, {1e-6, 1e6}))};
  config.is_moe_layer.assign(config.num_layers, true);
  TensorNames& names = config.tensor_names;
  names = CommonNames();
  names.sinks = "model.layers.{l}.self_attn.sinks";
  const std::string mlp = "model.layers.{l}.mlp.";
  names.router = mlp + "router.weight";
  names.router_bias = mlp + "router.bias";
  names.expert_layout = ExpertLayout::kInterleaved;
  names.expert_gate_up = mlp + "experts.gate_up_proj";
  names.expert_down = mlp + "experts.down_proj";
  names.expert_gate_up_bias = mlp + "experts.gate_up_proj_bias";
  names.expert_down_bias = mlp + "experts.down_proj_bias";
  return config;
}

}  // namespace gatehouse
