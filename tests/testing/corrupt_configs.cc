// The part of the corrupt set that lies in config.json and generation_config.json.
#include <filesystem>
#include <utility>

#include "tests/testing/corrupt_checkpoints.h"

namespace gatehouse {
namespace {

using nlohmann::json;

constexpr char kConfig[] = "config.json";
constexpr char kGeneration[] = "generation_config.json";

CorruptCheckpoint ConfigCase(std::string kind, std::string key, json value,
                             const std::string& fragment) {
  return {std::move(kind), key + " " + value.dump(), kConfig, fragment,
          [key, value = std::move(value)](CheckpointToWrite& checkpoint) {
            checkpoint.config[key] = value;
          }};
}

CorruptCheckpoint GenerationCase(std::string key, json value, const std::string& fragment) {
  return {"generation", key + " " + value.dump(), kGeneration, fragment,
          [key, value = std::move(value)](CheckpointToWrite& checkpoint) {
            checkpoint.generation_config[key] = value;
          }};
}

CorruptCheckpoint TextCase(const char* file, std::string name, std::string text,
                           std::string fragment) {
  return {"text",
          std::move(name),
          file,
          std::move(fragment),
          nullptr,
          [file, text = std::move(text)](const std::string& dir) {
            WriteFile(dir + "/" + file, text);
          }};
}

std::vector<CorruptCheckpoint> TypeCases() {
  const std::string kind = "type";
  return {
      ConfigCase(kind, "vocab_size", "300", "vocab_size: got \"300\", expected an integer"),
      ConfigCase(kind, "vocab_size", 300.0, "vocab_size: got 300.0, expected an integer"),
      ConfigCase(kind, "hidden_size", nullptr, "hidden_size: got null, expected an integer"),
      ConfigCase(kind, "num_hidden_layers", true, "num_hidden_layers: got true"),
      ConfigCase(kind, "norm_topk_prob", 1, "norm_topk_prob: got 1, expected true or false"),
      ConfigCase(kind, "rms_norm_eps", "1e-6", "rms_norm_eps: got \"1e-6\", expected a number"),
      ConfigCase(kind, "rope_scaling", "yarn", "rope_scaling: got \"yarn\", expected an object"),
      ConfigCase(kind, "mlp_only_layers", 0, "mlp_only_layers: got 0, expected a list"),
      ConfigCase(kind, "mlp_only_layers", {"0"}, "mlp_only_layers: got \"0\""),
      ConfigCase(kind, "eos_token_id", "0", "eos_token_id: got \"0\""),
      ConfigCase(kind, "model_type", 3, "model_type: got 3, expected a string"),
      ConfigCase(kind, "hidden_act", {"silu"}, "hidden_act: got [\"silu\"], expected a string"),
  };
}

std::vector<CorruptCheckpoint> RangeCases() {
  const std::string kind = "range";
  return {
      ConfigCase(kind, "vocab_size", 0, "vocab_size: got 0, expected an integer from 1"),
      ConfigCase(kind, "vocab_size", uint64_t{1} << 63, "vocab_size: got 9223372036854775808"),
      ConfigCase(kind, "hidden_size", -32, "hidden_size: got -32"),
      ConfigCase(kind, "num_hidden_layers", 1000000, "num_hidden_layers: got 1000000"),
      ConfigCase(kind, "num_experts", -1, "num_experts: got -1"),
      ConfigCase(kind, "num_experts", (int64_t{1} << 32) + 8, "num_experts: got 4294967304"),
      ConfigCase(kind, "num_key_value_heads", 0, "num_key_value_heads: got 0"),
      ConfigCase(kind, "head_dim", 7, "head_dim: got 7, expected an even number"),
      ConfigCase(kind, "rms_norm_eps", 0, "rms_norm_eps: got 0"),
      ConfigCase(kind, "rope_theta", -1, "rope_theta: got -1"),
      ConfigCase(kind, "decoder_sparse_step", 0, "decoder_sparse_step: got 0"),
      ConfigCase(kind, "max_position_embeddings", 0, "max_position_embeddings: got 0"),
      ConfigCase(kind, "rope_scaling", {{"type", "yarn"}, {"factor", 0.5}},
                 "rope_scaling.factor: got 0.5"),
      ConfigCase(kind, "rope_scaling", {{"type", "linear"}},
                 "rope_scaling.factor: got nothing, expected a number"),
  };
}

std::vector<CorruptCheckpoint> CrossCases() {
  const std::string kind = "cross";
  const json yarn = {{"rope_type", "yarn"}, {"factor", 4}, {"beta_fast", 1}, {"beta_slow", 32}};
  return {
      ConfigCase(kind, "num_key_value_heads", 3, "expected a divisor of num_attention_heads (4)"),
      ConfigCase(kind, "num_experts_per_tok", 9, "expected at most num_experts (8)"),
      ConfigCase(kind, "mlp_only_layers", {int64_t{1} << 31}, "mlp_only_layers: got 2147483648"),
      ConfigCase(kind, "num_local_experts", 4, "num_experts: got 8, expected what num_local"),
      ConfigCase(kind, "layer_types", {"sliding_attention", "sliding_attention"},
                 "expected what use_sliding_window and sliding_window say of all layers"),
      ConfigCase(kind, "pad_token_id", 300, "pad_token_id: got 300"),
      ConfigCase(kind, "rope_scaling", yarn, "rope_scaling.beta_fast: got 1, expected at least"),
  };
}

std::vector<CorruptCheckpoint> UnservedCases() {
  const std::string kind = "unserved";
  return {
      ConfigCase(kind, "model_type", "llama",
                 "got \"llama\", expected one of: deepseek_v2, deepseek_v3,"),
      ConfigCase(kind, "model_type", "qwen3\nmoe", "got \"qwen3\\nmoe\""),
      ConfigCase(kind, "hidden_act", "gelu", "hidden_act: got \"gelu\", expected \"silu\""),
      ConfigCase(kind, "quantization_config", {{"quant_method", "fp8"}}, "quantization_config"),
      ConfigCase(kind, "rope_scaling", {{"rope_type", "llama3"}, {"factor", 8}},
                 "rope_scaling.rope_type: got \"llama3\", expected one of default, linear, yarn"),
      ConfigCase(
          kind, "rope_parameters", {{"full_attention", {{"rope_theta", 1e4}}}},
          "rope_parameters.full_attention: got {\"rope_theta\":10000.0}, expected no object"),
      ConfigCase(kind, "partial_rotary_factor", 0.5, "partial_rotary_factor: got 0.5"),
      ConfigCase(kind, "torch_dtype", "float64", "torch_dtype: got \"float64\""),
  };
}

std::vector<CorruptCheckpoint> TextCases() {
  return {
      TextCase(kConfig, "config_empty", "", "bad JSON at byte"),
      TextCase(kConfig, "config_cut", "{\"model_type\": \"qwen3_moe\",", "bad JSON at byte 28"),
      TextCase(kConfig, "config_list", "[]", "got a JSON array, expected an object"),
      TextCase(kConfig, "config_without_type", "{}", "model_type: got nothing"),
      TextCase(kConfig, "config_key_twice", R"({"model_type": "a", "model_type": "b"})",
               "key \"model_type\" stands twice"),
      TextCase(kConfig, "config_number_too_large", R"({"rms_norm_eps": 1e999})",
               "bad JSON at byte"),
      TextCase(kGeneration, "generation_cut", "{\"top_p\": ", "bad JSON at byte"),
      {"text", "config_missing", kConfig, "no such file", nullptr,
       [](const std::string& dir) { std::filesystem::remove(dir + "/" + kConfig); }},
  };
}

std::vector<CorruptCheckpoint> GenerationCases() {
  return {
      GenerationCase("temperature", -1, "temperature: got -1, expected a number from 0"),
      GenerationCase("temperature", "hot", "temperature: got \"hot\""),
      GenerationCase("top_p", 0, "top_p: got 0"),
      GenerationCase("top_k", -5, "top_k: got -5"),
      GenerationCase("do_sample", "yes", "do_sample: got \"yes\", expected true or false"),
      GenerationCase("eos_token_id", int64_t{1} << 40, "eos_token_id: got 1099511627776"),
  };
}

}  // namespace

std::vector<CorruptCheckpoint> CorruptConfigs() {
  std::vector<CorruptCheckpoint> all;
  for (const auto& cases :
       {TypeCases(), RangeCases(), CrossCases(), UnservedCases(), TextCases(), GenerationCases()}) {
    all.insert(all.end(), cases.begin(), cases.end());
  }
  return all;
}

}  // namespace gatehouse
