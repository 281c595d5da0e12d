#include "tests/testing/checkpoint_builder.h"

#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <numeric>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "engine/model/model_config.h"
#include "engine/model/model_tensors.h"
#include "kernels/base/check.h"

namespace gatehouse {
namespace {

using nlohmann::json;

// A file's values are its dtype's bits, little-endian like the machines this runs on.
void AppendValue(DType dtype, float value, std::string& bytes) {
  if (dtype == DType::kF32) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    bytes.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
    return;
  }
  uint16_t bits = F32ToBF16(value);
  if (dtype == DType::kF16) {
    // Truncated: |value| < 2 here, and which f16 it becomes does not matter.
    const uint32_t wide = std::bit_cast<uint32_t>(value);
    const int exponent = static_cast<int>((wide >> 23) & 0xff) - 112;
    const uint32_t magnitude =
        exponent <= 0 ? 0 : (static_cast<uint32_t>(exponent) << 10) | ((wide >> 13) & 0x3ff);
    bits = static_cast<uint16_t>(((wide >> 16) & 0x8000) | magnitude);
  }
  bytes.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
}

const char* FileDType(DType dtype) {
  return dtype == DType::kF32 ? "F32" : dtype == DType::kBF16 ? "BF16" : "F16";
}

// Norm weights near 1, others uniform with variance 1 / num_inputs.
TensorToWrite RandomTensor(const std::string& name, const TensorShape& shape, DType dtype,
                           std::mt19937_64& random) {
  TensorToWrite tensor;
  tensor.dtype = FileDType(dtype);
  tensor.shape = shape;
  const bool is_norm = absl::StrContains(name, "norm");
  const double scale =
      is_norm || shape.size() == 1 ? 0.2 : std::sqrt(3.0 / static_cast<double>(shape.back()));
  const int64_t count =
      std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  for (int64_t i = 0; i < count; ++i) {
    // Bits by hand: the standard's distributions differ between libraries.
    const double uniform = static_cast<double>(random() >> 11) * 0x1p-52 - 1;  // [-1, 1)
    AppendValue(dtype, static_cast<float>((is_norm ? 1 : 0) + scale * uniform), tensor.bytes);
  }
  return tensor;
}

std::string Utf8(int code_point) {
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xc0 | (code_point >> 6)),
          static_cast<char>(0x80 | (code_point & 0x3f))};
}

// GPT-2's printable name of a byte.
std::string ByteSymbol(int byte) {
  static constexpr auto kIsPrintable = [](int b) {
    return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
  };
  if (kIsPrintable(byte)) return Utf8(byte);
  int num_before = 0;
  for (int b = 0; b < byte; ++b) num_before += kIsPrintable(b) ? 0 : 1;
  return Utf8(256 + num_before);
}

json ByteTokenizer() {
  json vocab = {{"<|endoftext|>", 0}};
  for (int byte = 0; byte < 256; ++byte) vocab[ByteSymbol(byte)] = 1 + byte;
  const json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  const json end_token = {
      {"id", 0},         {"content", "<|endoftext|>"}, {"single_word", false}, {"lstrip", false},
      {"rstrip", false}, {"normalized", false},        {"special", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", json::array({end_token})},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", json::array()}}}};
}

json TinyConfig(const TinyModelOptions& options) {
  return {{"architectures", json::array({"Qwen3MoeForCausalLM"})},
          {"model_type", "qwen3_moe"},
          {"vocab_size", options.vocab_size},
          {"hidden_size", options.hidden_size},
          {"num_hidden_layers", options.num_layers},
          {"num_attention_heads", options.num_heads},
          {"num_key_value_heads", options.num_kv_heads},
          {"head_dim", options.head_dim},
          {"intermediate_size", options.intermediate_size},
          {"moe_intermediate_size", options.moe_intermediate_size},
          {"num_experts", options.num_experts},
          {"num_experts_per_tok", options.top_k},
          {"norm_topk_prob", options.norm_topk_prob},
          {"decoder_sparse_step", options.decoder_sparse_step},
          {"mlp_only_layers", options.mlp_only_layers},
          {"hidden_act", "silu"},
          {"rms_norm_eps", 1e-6},
          {"rope_theta", 10000.0},
          {"rope_scaling", nullptr},
          {"max_position_embeddings", options.max_positions},
          {"attention_bias", options.attention_bias},
          {"use_sliding_window", false},
          {"tie_word_embeddings", options.tie_word_embeddings},
          {"bos_token_id", 0},
          {"eos_token_id", 0}};
}

void WriteShards(const CheckpointToWrite& checkpoint, const std::string& dir) {
  std::vector<TensorsToWrite> shards(checkpoint.num_shards);
  json weight_map = json::object();
  int next = 0;
  for (const auto& [name, tensor] : checkpoint.tensors) {
    const int shard_idx = next++ % checkpoint.num_shards;
    shards[shard_idx].emplace(name, tensor);
    weight_map[name] =
        absl::StrFormat("model-%05d-of-%05d.safetensors", shard_idx + 1, checkpoint.num_shards);
  }
  for (int i = 0; i < checkpoint.num_shards; ++i) {
    WriteFile(
        absl::StrFormat("%s/model-%05d-of-%05d.safetensors", dir, i + 1, checkpoint.num_shards),
        SafetensorsFileOf(SafetensorsHeader(shards[i]).dump(), SafetensorsData(shards[i])));
  }
  const json metadata = {{"total_size", SafetensorsData(checkpoint.tensors).size()}};
  WriteFile(dir + "/model.safetensors.index.json",
            json{{"metadata", metadata}, {"weight_map", weight_map}}.dump());
}

}  // namespace

CheckpointToWrite MakeTinyQwen3Moe(const TinyModelOptions& options) {
  CheckpointToWrite checkpoint = MakeTinyModel(TinyConfig(options), options.dtype, options.seed);
  checkpoint.num_shards = options.num_shards;
  return checkpoint;
}

CheckpointToWrite MakeTinyModel(const json& model_config, DType dtype, uint64_t seed) {
  CheckpointToWrite checkpoint;
  checkpoint.config = model_config;
  checkpoint.generation_config = {{"eos_token_id", 0}};
  checkpoint.tokenizer = ByteTokenizer();
  checkpoint.tokenizer_config = {{"eos_token", "<|endoftext|>"}};
  const absl::StatusOr<ModelConfig> config = ParseModelConfig(checkpoint.config.dump(), "options");
  GATEHOUSE_CHECK(config.ok()) << config.status();
  std::mt19937_64 random(seed);
  ForEachTensor(*config, [&](const std::string& name, const TensorShape& shape) {
    checkpoint.tensors[name] = RandomTensor(name, shape, dtype, random);
  });
  return checkpoint;
}

void WriteCheckpoint(const CheckpointToWrite& checkpoint, const std::string& dir) {
  std::filesystem::create_directories(dir);
  WriteFile(dir + "/config.json", checkpoint.config.dump());
  WriteFile(dir + "/generation_config.json", checkpoint.generation_config.dump());
  WriteFile(dir + "/tokenizer.json", checkpoint.tokenizer.dump());
  WriteFile(dir + "/tokenizer_config.json", checkpoint.tokenizer_config.dump());
  if (checkpoint.num_shards > 1) {
    WriteShards(checkpoint, dir);
    return;
  }
  WriteFile(dir + "/model.safetensors",
            SafetensorsFileOf(SafetensorsHeader(checkpoint.tensors).dump(),
                              SafetensorsData(checkpoint.tensors)));
}

json SafetensorsHeader(const TensorsToWrite& tensors) {
  json header = {{"__metadata__", {{"format", "pt"}}}};
  size_t begin = 0;
  for (const auto& [name, tensor] : tensors) {
    const size_t end = begin + tensor.bytes.size();
    header[name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}};
    begin = end;
  }
  return header;
}

std::string SafetensorsData(const TensorsToWrite& tensors) {
  std::string data;
  for (const auto& [name, tensor] : tensors) data += tensor.bytes;
  return data;
}

std::string SafetensorsFileOf(std::string_view header, std::string_view data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) {
    bytes.push_back(static_cast<char>(static_cast<uint64_t>(header.size()) >> (8 * i)));
  }
  bytes += header;
  bytes += data;
  return bytes;
}

void WriteFile(const std::string& path, std::string_view bytes) {
  std::ofstream stream(path, std::ios::binary);
  stream.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  stream.close();
  GATEHOUSE_CHECK(stream.good()) << path;
}

std::string ReadFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  GATEHOUSE_CHECK(stream.good()) << path;
  return {std::istreambuf_iterator<char>(stream), {}};
}

TempDir::TempDir() {
  std::string pattern = (std::filesystem::temp_directory_path() / "gatehouse-XXXXXX").string();
  GATEHOUSE_CHECK(mkdtemp(pattern.data()) != nullptr) << pattern;
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

}  // namespace gatehouse
