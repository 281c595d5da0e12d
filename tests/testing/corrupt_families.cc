// The part of the corrupt set that belongs to families beside Qwen3-MoE: their keys and their
// tensors.
#include <tuple>
#include <utility>

#include "kernels/base/check.h"
#include "tests/testing/corrupt_checkpoints.h"

namespace gatehouse {
namespace {

using nlohmann::json;

constexpr char kConfig[] = "config.json";
constexpr char kWeights[] = "model.safetensors";

// What all of them say alike, and what is a family's own.
json TinyConfig(const std::string& family, const json& own) {
  json config = {
      {"model_type", family},    {"vocab_size", 300},        {"hidden_size", 32},
      {"num_hidden_layers", 2},  {"num_attention_heads", 4}, {"num_key_value_heads", 2},
      {"intermediate_size", 24}, {"num_experts_per_tok", 2}, {"max_position_embeddings", 128},
      {"eos_token_id", 0}};
  config.update(own);
  return config;
}

json Mixtral() { return TinyConfig("mixtral", {{"num_local_experts", 4}, {"sliding_window", 9}}); }
json Qwen2Moe() {
  return TinyConfig("qwen2_moe", {{"num_experts", 4},
                                  {"moe_intermediate_size", 20},
                                  {"shared_expert_intermediate_size", 28},
                                  {"use_sliding_window", true},
                                  {"sliding_window", 9}});
}
json Olmoe() { return TinyConfig("olmoe", {{"num_experts", 4}, {"clip_qkv", 2.0}}); }
json Granite() { return TinyConfig("granitemoe", {{"num_local_experts", 4}}); }
json GptOss() {
  return TinyConfig("gpt_oss", {{"num_local_experts", 4}, {"head_dim", 8}, {"sliding_window", 9}});
}

json LocMoe(const char* gate = "grap") {
  return TinyConfig("gatehouse_locmoe",
                    {{"num_experts", 4}, {"moe_intermediate_size", 20}, {"gate", gate}});
}

json Deepseek(const std::string& family, const json& own) {
  json config = TinyConfig(family, {{"num_key_value_heads", 4},
                                    {"n_routed_experts", 4},
                                    {"n_shared_experts", 1},
                                    {"moe_intermediate_size", 20},
                                    {"first_k_dense_replace", 1},
                                    {"kv_lora_rank", 12},
                                    {"q_lora_rank", 10},
                                    {"qk_nope_head_dim", 6},
                                    {"qk_rope_head_dim", 4},
                                    {"v_head_dim", 8}});
  config.update(own);
  return config;
}
json DeepseekV2() { return Deepseek("deepseek_v2", json::object()); }
json DeepseekV3() { return Deepseek("deepseek_v3", {{"n_group", 2}, {"topk_group", 1}}); }

CorruptCheckpoint KeyCase(json intact, std::string key, json value, std::string fragment) {
  const std::string name = key + " " + value.dump();
  return {intact["model_type"],
          name,
          kConfig,
          std::move(fragment),
          [key = std::move(key), value = std::move(value)](CheckpointToWrite& checkpoint) {
            checkpoint.config[key] = value;
          },
          {},
          std::move(intact)};
}

// What a case does to one tensor of layer 1.
CorruptCheckpoint TensorCase(json intact, const std::string& tensor, std::string fragment,
                             std::function<void(TensorsToWrite&, const std::string&)> spoil) {
  const std::string name = "model.layers.1." + tensor;
  return {intact["model_type"],
          tensor + ": " + fragment,
          kWeights,
          name + ": " + fragment,
          [name, spoil = std::move(spoil)](CheckpointToWrite& checkpoint) {
            GATEHOUSE_CHECK(checkpoint.tensors.count(name) == 1) << name;
            spoil(checkpoint.tensors, name);
          },
          {},
          std::move(intact)};
}

CorruptCheckpoint MissingCase(json intact, const std::string& tensor, const std::string& shape) {
  return TensorCase(std::move(intact), tensor, "missing, expected " + shape,
                    [](TensorsToWrite& tensors, const std::string& name) { tensors.erase(name); });
}

CorruptCheckpoint ShapeCase(json intact, const std::string& tensor, std::vector<int64_t> shape,
                            std::string fragment) {
  return TensorCase(std::move(intact), tensor, "shape: " + fragment,
                    [shape = std::move(shape)](TensorsToWrite& tensors, const std::string& name) {
                      tensors[name].shape = shape;
                    });
}

CorruptCheckpoint StrayCase(json intact, const std::string& tensor, std::vector<int64_t> shape,
                            std::string fragment) {
  const std::string name = "model.layers.1." + tensor;
  return {intact["model_type"],
          tensor + ": " + fragment,
          kWeights,
          name + ": " + fragment,
          [name, shape = std::move(shape)](CheckpointToWrite& checkpoint) {
            GATEHOUSE_CHECK(checkpoint.tensors.count(name) == 0) << name;
            const int64_t num_bytes = shape[0] * shape[1] * static_cast<int64_t>(sizeof(float));
            checkpoint.tensors[name] = {"F32", shape, std::string(num_bytes, '\0')};
          },
          {},
          std::move(intact)};
}

CorruptCheckpoint NanCase(json intact, const std::string& tensor, std::string fragment) {
  return TensorCase(std::move(intact), tensor, std::move(fragment),
                    [](TensorsToWrite& tensors, const std::string& name) {
                      std::string& bytes = tensors[name].bytes;
                      bytes.replace(bytes.size() - 4, 4, std::string("\0\0\xc0\x7f", 4));
                    });
}

// What every family reads, spoilt in each of them.
std::vector<CorruptCheckpoint> CommonKeyCases() {
  std::vector<CorruptCheckpoint> all;
  for (const json& config : TinyFamilyConfigs()) {
    for (auto& [key, value, fragment] : std::vector<std::tuple<const char*, json, const char*>>{
             {"vocab_size", "300", "vocab_size: got \"300\", expected an integer from 1 to"},
             {"hidden_size", -32, "hidden_size: got -32, expected an integer from 1 to"},
             {"num_hidden_layers", nullptr, "num_hidden_layers: got null, expected an integer"},
             {"num_hidden_layers", int64_t{1} << 40, "num_hidden_layers: got 1099511627776"},
             {"num_experts_per_tok", 5, "num_experts_per_tok: got 5, expected at most"},
             {"num_attention_heads", 0, "num_attention_heads: got 0, expected an integer from 1"},
             {"rms_norm_eps", 2, "rms_norm_eps: got 2, expected a number from"},
             {"hidden_act", "relu2", "hidden_act: got \"relu2\", expected \"silu\" or \"swish\""},
             {"rope_theta", "1e4", "rope_theta: got \"1e4\", expected a number from"},
             {"rope_parameters",
              {{"sliding_attention", {{"rope_theta", 1e4}}}},
              "rope_parameters.sliding_attention: got {\"rope_theta\":10000.0}"},
             {"layer_types",
              {"full_attention", "chunked_attention"},
              "expected sliding_attention and full_attention alone"},
             {"tie_word_embeddings", 0, "tie_word_embeddings: got 0, expected true or false"}}) {
      all.push_back(KeyCase(config, key, value, fragment));
    }
  }
  return all;
}

std::vector<CorruptCheckpoint> KeyCases() {
  const json both = {"full_attention", "sliding_attention"};
  return {
      KeyCase(Mixtral(), "sliding_window", 0, "sliding_window: got 0, expected an integer from 1"),
      KeyCase(Mixtral(), "sliding_window", "9", "sliding_window: got \"9\""),
      KeyCase(Mixtral(), "layer_types", both, "expected what sliding_window says of all layers"),
      KeyCase(Mixtral(), "num_local_experts", 1, "expected at most num_local_experts (1)"),
      KeyCase(Mixtral(), "hidden_act", "gelu", "hidden_act: got \"gelu\""),
      KeyCase(Qwen2Moe(), "sliding_window", nullptr,
              "sliding_window: got null, expected an integer"),
      KeyCase(Qwen2Moe(), "layer_types", {"full_attention"}, "expected one for each of 2 layers"),
      KeyCase(Qwen2Moe(), "layer_types", {"full_attention", "linear_attention"},
              "expected sliding_attention and full_attention alone"),
      KeyCase(Qwen2Moe(), "layer_types", "full_attention", "expected a list of strings"),
      KeyCase(Qwen2Moe(), "layer_types", {"full_attention", 1}, "expected a list of strings"),
      KeyCase(Qwen2Moe(), "shared_expert_intermediate_size", 0,
              "shared_expert_intermediate_size: got 0"),
      KeyCase(Qwen2Moe(), "qkv_bias", 1, "qkv_bias: got 1, expected true or false"),
      KeyCase(Qwen2Moe(), "max_window_layers", -1, "max_window_layers: got -1"),
      KeyCase(Olmoe(), "clip_qkv", 0, "clip_qkv: got 0, expected a number from"),
      KeyCase(Olmoe(), "clip_qkv", -8, "clip_qkv: got -8, expected a number from"),
      KeyCase(Olmoe(), "sliding_window", 64, "expected null: this family has no windows"),
      KeyCase(Granite(), "logits_scaling", 0, "logits_scaling: got 0, expected a number from"),
      KeyCase(Granite(), "residual_multiplier", "0.2", "residual_multiplier: got \"0.2\""),
      KeyCase(Granite(), "attention_multiplier", nullptr, "attention_multiplier: got null"),
      KeyCase(Granite(), "layer_types", both, "full_attention alone: this family has no windows"),
      KeyCase(GptOss(), "sliding_window", nullptr, "sliding_window: got null, expected an integer"),
      KeyCase(GptOss(), "layer_types", json::array(), "expected one for each of 2 layers"),
      KeyCase(GptOss(), "swiglu_limit", 0, "swiglu_limit: got 0, expected a number from"),
      KeyCase(GptOss(), "rope_scaling", {{"rope_type", "longrope"}}, "got \"longrope\""),
      KeyCase(Mixtral(), "num_experts", 8,
              "num_experts: got 8, expected what num_local_experts says (4)"),
      KeyCase(DeepseekV2(), "num_experts", 8,
              "n_routed_experts: got 4, expected what num_experts says (8)"),
      KeyCase(DeepseekV3(), "num_local_experts", 8,
              "n_routed_experts: got 4, expected what num_local_experts says (8)"),
      KeyCase(DeepseekV2(), "sliding_window", 9, "expected null: this family has no windows"),
      KeyCase(DeepseekV3(), "layer_types", both,
              "full_attention alone: this family has no windows"),
      KeyCase(DeepseekV2(), "kv_lora_rank", 0, "kv_lora_rank: got 0, expected an integer from 1"),
      KeyCase(DeepseekV3(), "qk_rope_head_dim", 5, "qk_rope_head_dim: got 5, expected an even"),
      KeyCase(DeepseekV3(), "n_group", 4, "n_group: got 4, expected a divisor of"),
      KeyCase(LocMoe(), "gate", "pooled", "gate: got \"pooled\", expected grap or learned"),
      KeyCase(LocMoe(), "num_experts", 3, "expected a divisor of hidden_size (32)"),
      KeyCase(GptOss(), "quantization_config", {{"quant_method", "mxfp4"}}, "quantization_config"),
  };
}

std::vector<CorruptCheckpoint> TensorCases() {
  const std::string moe = "block_sparse_moe.", experts = "mlp.experts.";
  return {
      MissingCase(Mixtral(), moe + "experts.3.w3.weight", "[24, 32]"),
      ShapeCase(Mixtral(), moe + "experts.0.w2.weight", {24, 32},
                "got [24, 32], expected [32, 24]"),
      MissingCase(Qwen2Moe(), "mlp.shared_expert_gate.weight", "[1, 32]"),
      MissingCase(Qwen2Moe(), "mlp.shared_expert.down_proj.weight", "[32, 28]"),
      MissingCase(Qwen2Moe(), "self_attn.v_proj.bias", "[16]"),
      ShapeCase(Olmoe(), "self_attn.q_norm.weight", {4, 8}, "got [4, 8], expected [32]"),
      MissingCase(Olmoe(), "self_attn.k_norm.weight", "[16]"),
      ShapeCase(Granite(), moe + "input_linear.weight", {4, 32, 48},
                "got [4, 32, 48], expected [4, 48, 32]"),
      ShapeCase(Granite(), moe + "output_linear.weight", {2, 64, 24},
                "got [2, 64, 24], expected [4, 32, 24]"),
      ShapeCase(Granite(), moe + "input_linear.weight", {192, 32},
                "got [192, 32], expected [4, 48, 32]"),
      NanCase(Granite(), moe + "output_linear.weight", "got a NaN at value 3071 of [4, 32, 24]"),
      ShapeCase(GptOss(), experts + "gate_up_proj", {4, 48, 32},
                "got [4, 48, 32], expected [4, 32, 48]"),
      ShapeCase(GptOss(), experts + "down_proj", {4, 32, 24},
                "got [4, 32, 24], expected [4, 24, 32]"),
      MissingCase(GptOss(), experts + "gate_up_proj_bias", "[4, 48]"),
      MissingCase(GptOss(), experts + "down_proj_bias", "[4, 32]"),
      MissingCase(GptOss(), "mlp.router.bias", "[4]"),
      MissingCase(GptOss(), "self_attn.sinks", "[4]"),
      MissingCase(GptOss(), "self_attn.o_proj.bias", "[32]"),
      NanCase(GptOss(), experts + "gate_up_proj_bias", "got a NaN at value 191 of [4, 48]"),
      MissingCase(DeepseekV2(), "self_attn.kv_a_proj_with_mqa.weight", "[16, 32]"),
      MissingCase(DeepseekV2(), "self_attn.kv_a_layernorm.weight", "[12]"),
      ShapeCase(DeepseekV2(), "self_attn.q_b_proj.weight", {10, 40},
                "got [10, 40], expected [40, 10]"),
      ShapeCase(DeepseekV3(), "self_attn.kv_b_proj.weight", {12, 56},
                "got [12, 56], expected [56, 12]"),
      MissingCase(DeepseekV3(), "mlp.gate.e_score_correction_bias", "[4]"),
      MissingCase(DeepseekV3(), "mlp.shared_experts.down_proj.weight", "[32, 20]"),
      NanCase(DeepseekV3(), "mlp.gate.e_score_correction_bias", "got a NaN at value 3 of [4]"),
      MissingCase(LocMoe("learned"), "mlp.gate.weight", "[4, 32]"),
      StrayCase(LocMoe(), "mlp.gate.weight", {4, 32}, "got a tensor, expected none"),
      NanCase(GptOss(), "self_attn.sinks", "got a NaN at value 3 of [4]"),
  };
}

}  // namespace

std::vector<json> TinyFamilyConfigs() {
  return {Mixtral(), Qwen2Moe(),   Olmoe(),      Granite(),
          GptOss(),  DeepseekV2(), DeepseekV3(), LocMoe()};
}

std::vector<CorruptCheckpoint> CorruptFamilies() {
  std::vector<CorruptCheckpoint> all = KeyCases();
  for (auto& cases : {CommonKeyCases(), TensorCases()}) {
    all.insert(all.end(), cases.begin(), cases.end());
  }
  return all;
}

}  // namespace gatehouse
