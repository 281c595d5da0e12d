// Model folders for tests: a random tiny model of any sizes, with its tokenizer, as values that a
// test may spoil before (or after) they are written.
//
//   TempDir dir;
//   WriteCheckpoint(MakeTinyQwen3Moe({.num_experts = 4}), dir.path());
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/dtype.h"
#include "nlohmann/json.hpp"

namespace gatehouse {

struct TinyModelOptions {
  int32_t vocab_size = 300;  // the tokenizer uses the first 257
  int32_t hidden_size = 32;
  int32_t num_layers = 2;
  int32_t num_heads = 4;
  int32_t num_kv_heads = 2;
  int32_t head_dim = 8;
  int32_t intermediate_size = 40;  // of dense layers
  int32_t moe_intermediate_size = 24;
  int32_t num_experts = 8;
  int32_t top_k = 2;
  int32_t max_positions = 128;
  int32_t decoder_sparse_step = 1;
  std::vector<int32_t> mlp_only_layers;
  bool norm_topk_prob = true;
  bool tie_word_embeddings = false;
  bool attention_bias = false;
  DType dtype = DType::kF32;
  uint64_t seed = 1;
  int num_shards = 1;  // more than one: shards and an index
};

struct TensorToWrite {
  std::string dtype;  // "F32"
  std::vector<int64_t> shape;
  std::string bytes;
};
using TensorsToWrite = std::map<std::string, TensorToWrite>;

struct CheckpointToWrite {
  nlohmann::json config;
  nlohmann::json generation_config;
  nlohmann::json tokenizer;  // byte-level BPE without merges: id 0 ends, id 1 + b is byte b
  nlohmann::json tokenizer_config;
  TensorsToWrite tensors;
  int num_shards = 1;
};

CheckpointToWrite MakeTinyQwen3Moe(const TinyModelOptions& options);
// The tensors that a configuration of any family asks for, of random values.
CheckpointToWrite MakeTinyModel(const nlohmann::json& config, DType dtype = DType::kF32,
                                uint64_t seed = 1);
void WriteCheckpoint(const CheckpointToWrite& checkpoint, const std::string& dir);

// The parts of a safetensors file, for tests that spoil one.
nlohmann::json SafetensorsHeader(const TensorsToWrite& tensors);
std::string SafetensorsData(const TensorsToWrite& tensors);
std::string SafetensorsFileOf(std::string_view header, std::string_view data);

void WriteFile(const std::string& path, std::string_view bytes);
std::string ReadFile(const std::string& path);

// A new folder, removed with all it holds at the end.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace gatehouse
