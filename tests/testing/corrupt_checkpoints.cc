#include "tests/testing/corrupt_checkpoints.h"

#include <filesystem>
#include <utility>

namespace gatehouse {
namespace {

using nlohmann::json;

constexpr char kSingle[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";
constexpr char kShard1[] = "model-00001-of-00002.safetensors";
constexpr char kShard2[] = "model-00002-of-00002.safetensors";
constexpr char kRouter[] = "model.layers.0.mlp.gate.weight";       // [8, 32]
constexpr char kNorm[] = "model.layers.1.input_layernorm.weight";  // [32]
constexpr char kEmbedding[] = "model.embed_tokens.weight";         // [300, 32]

// --- Bytes of model.safetensors ---

CorruptCheckpoint FileCase(std::string name, std::string fragment,
                           std::function<std::string(std::string bytes)> spoil) {
  return {"file",
          std::move(name),
          kSingle,
          std::move(fragment),
          nullptr,
          [spoil = std::move(spoil)](const std::string& dir) {
            const std::string path = dir + "/" + kSingle;
            WriteFile(path, spoil(ReadFile(path)));
          }};
}

// The header as text, the data unchanged.
CorruptCheckpoint HeaderCase(std::string name, std::string fragment,
                             std::function<std::string(const json& header)> spoil) {
  CheckpointToWrite built = MakeTinyQwen3Moe({});
  return {"header",
          std::move(name),
          kSingle,
          std::move(fragment),
          nullptr,
          [spoil = std::move(spoil), tensors = built.tensors](const std::string& dir) {
            WriteFile(dir + "/" + kSingle, SafetensorsFileOf(spoil(SafetensorsHeader(tensors)),
                                                             SafetensorsData(tensors)));
          }};
}

// One value of the router's entry in the header.
CorruptCheckpoint EntryCase(std::string name, std::string fragment, std::string key, json value) {
  CorruptCheckpoint corrupt = HeaderCase(std::move(name), std::string(kRouter) + ": " + fragment,
                                         [key, value = std::move(value)](const json& header) {
                                           json spoilt = header;
                                           spoilt[kRouter][key] = value;
                                           return spoilt.dump();
                                         });
  corrupt.kind = key == "data_offsets" ? "offsets" : "entry";
  return corrupt;
}

std::vector<CorruptCheckpoint> FileCases() {
  return {
      FileCase("empty", "empty", [](std::string) { return ""; }),
      FileCase("shorter_than_a_length", "got 5 bytes, expected at least the 8",
               [](std::string bytes) { return bytes.substr(0, 5); }),
      FileCase("absurd_header_length", "header length: got 18446744073709551615 bytes",
               [](std::string bytes) { return bytes.replace(0, 8, 8, '\xff'); }),
      FileCase("header_longer_than_the_format_allows", "expected at most 100000000",
               [](std::string bytes) {
                 return bytes.replace(0, 8, std::string("\x01\xe1\xf5\x05\0\0\0\0", 8));
               }),
      FileCase("header_longer_than_the_file", "that follow",
               [](std::string bytes) { return bytes.replace(2, 1, 1, '\x7f'); }),
      FileCase("header_of_no_bytes", "bad JSON at byte",
               [](std::string bytes) { return bytes.replace(0, 8, 8, '\0'); }),
      FileCase("cut_in_the_header", "header length",
               [](std::string bytes) { return bytes.substr(0, 300); }),
      FileCase("cut_in_the_data", "expected begin <= end <=",
               [](std::string bytes) { return bytes.substr(0, bytes.size() - 1000); }),
      FileCase("bytes_after_the_data", "that tensors cover",
               [](std::string bytes) { return bytes + "more"; }),
      FileCase("bytes_after_the_last_brace", "bad JSON at byte",
               [](std::string bytes) {
                 bytes[0] = static_cast<char>(bytes[0] + 1);  // of the header's length
                 return bytes;
               }),
  };
}

std::vector<CorruptCheckpoint> HeaderCases() {
  return {
      HeaderCase("no_json", "header: bad JSON at byte 2,", [](const json&) { return "tensors"; }),
      HeaderCase("unclosed", "header: bad JSON at byte",
                 [](const json& header) { return header.dump().substr(0, 500); }),
      HeaderCase("invalid_utf8", "header: bad JSON at byte",
                 [](const json&) { return "{\"\xc3\x28\": 1}"; }),
      HeaderCase("list", "header: got a JSON array, expected an object",
                 [](const json& header) { return json::array({header}).dump(); }),
      HeaderCase("name_twice", "key \"a\" stands twice",
                 [](const json&) { return R"({"a": {}, "a": {}})"; }),
      HeaderCase("deep_nesting", "nests deeper than 32",
                 [](const json&) { return "{\"a\":" + std::string(100000, '['); }),
      HeaderCase("metadata_of_numbers", "__metadata__: got {\"n\":1}",
                 [](const json& header) {
                   json spoilt = header;
                   spoilt["__metadata__"] = {{"n", 1}};
                   return spoilt.dump();
                 }),
      HeaderCase("name_with_newline", "a\\x0ab: got 7, expected an object",
                 [](const json&) { return R"({"a\nb": 7})"; }),
      HeaderCase("entry_without_shape", "model.norm.weight: no shape",
                 [](const json& header) {
                   json spoilt = header;
                   spoilt["model.norm.weight"].erase("shape");
                   return spoilt.dump();
                 }),
  };
}

std::vector<CorruptCheckpoint> EntryCases() {
  const json header = SafetensorsHeader(MakeTinyQwen3Moe({}).tensors);
  const int64_t begin = header[kRouter]["data_offsets"][0],
                end = header[kRouter]["data_offsets"][1];
  return {
      EntryCase("dtype_number", "dtype: got 32, expected a string", "dtype", 32),
      EntryCase("dtype_unknown", "dtype: got \"F12\"", "dtype", "F12"),
      EntryCase("dtype_wider", "data_offsets: got 1024 bytes, expected 2048 for F64 [8, 32]",
                "dtype", "F64"),
      EntryCase("shape_negative", "shape: got [-8,32]", "shape", {-8, 32}),
      EntryCase("shape_fraction", "shape: got [8.0,32]", "shape", {8.0, 32}),
      EntryCase("shape_text", "shape: got \"8x32\"", "shape", "8x32"),
      EntryCase(
          "shape_beyond_64_bits",
          "shape: got [4611686018427387904, 4611686018427387904], expected fewer than 2^64 bits",
          "shape", {int64_t{1} << 62, int64_t{1} << 62}),
      EntryCase("shape_wrapping_to_the_size",
                "shape: got [8, 32, 8589934592, 8589934592], expected fewer than 2^64 bits",
                "shape", {8, 32, int64_t{1} << 33, int64_t{1} << 33}),
      EntryCase("shape_larger", "data_offsets: got 1024 bytes, expected 1152 for F32 [9, 32]",
                "shape", {9, 32}),
      EntryCase("three_offsets", "data_offsets: got [", "data_offsets", {begin, end, end}),
      EntryCase("negative_offset", "data_offsets: got [-1,", "data_offsets", {-1, end}),
      EntryCase("reversed", "data_offsets: got [151680, 150656], expected begin <= end",
                "data_offsets", {end, begin}),
      EntryCase("beyond_the_data", "data_offsets: got [1099511778432, 1099511779456], expected",
                "data_offsets", {begin + (int64_t{1} << 40), end + (int64_t{1} << 40)}),
      EntryCase("overlap", "data_offsets: got [150652, 151676], which overlaps another tensor",
                "data_offsets", {begin - 4, end - 4}),
      EntryCase("hole", "data_offsets: got [150660, 151684], which leaves a hole", "data_offsets",
                {begin + 4, end + 4}),
  };
}

// --- Tensors ---

CorruptCheckpoint TensorCase(std::string kind, std::string name, std::string fragment,
                             std::function<void(CheckpointToWrite&)> spoil) {
  return {std::move(kind), std::move(name), kSingle, std::move(fragment), std::move(spoil)};
}

void SetFirstValue(TensorToWrite& tensor, const std::string& bytes) {
  tensor.bytes.replace(tensor.bytes.size() - bytes.size(), bytes.size(), bytes);
}

std::vector<CorruptCheckpoint> TensorCases() {
  return {
      TensorCase("shape", "transposed", "got [32, 8], expected [8, 32]",
                 [](auto& checkpoint) {
                   checkpoint.tensors[kRouter].shape = {32, 8};
                 }),
      TensorCase("shape", "vector_as_matrix", "got [1, 32], expected [32]",
                 [](auto& checkpoint) {
                   checkpoint.tensors[kNorm].shape = {1, 32};
                 }),
      TensorCase("shape", "other_vocabulary", "got [300, 32], expected [301, 32]",
                 [](auto& checkpoint) { checkpoint.config["vocab_size"] = 301; }),
      TensorCase("shape", "fewer_experts_than_the_file", "gate.weight: shape: got [8, 32]",
                 [](auto& checkpoint) { checkpoint.config["num_experts"] = 7; }),
      TensorCase("dtype", "integers", "dtype: got I32, expected F32, BF16 or F16",
                 [](auto& checkpoint) { checkpoint.tensors[kRouter].dtype = "I32"; }),
      TensorCase("dtype", "eight_bit_floats", "dtype: got F8_E4M3, expected F32, BF16 or F16",
                 [](auto& checkpoint) {
                   checkpoint.tensors[kNorm] = {"F8_E4M3", {32}, std::string(32, '\x38')};
                 }),
      TensorCase("missing", "expert", "experts.7.up_proj.weight: missing, expected [24, 32]",
                 [](auto& checkpoint) {
                   checkpoint.tensors.erase("model.layers.1.mlp.experts.7.up_proj.weight");
                 }),
      TensorCase("missing", "more_layers_than_the_file", "model.layers.2.",
                 [](auto& checkpoint) { checkpoint.config["num_hidden_layers"] = 3; }),
      TensorCase("missing", "output_matrix", "lm_head.weight: missing, expected [300, 32]",
                 [](auto& checkpoint) { checkpoint.tensors.erase("lm_head.weight"); }),
      TensorCase("missing", "bias", "q_proj.bias: missing, expected [32]",
                 [](auto& checkpoint) { checkpoint.config["attention_bias"] = true; }),
      TensorCase("tied", "another_output_matrix", "lm_head.weight: got values other than",
                 [](auto& checkpoint) { checkpoint.config["tie_word_embeddings"] = true; }),
      TensorCase("tied", "same_bytes_of_another_dtype", "lm_head.weight: got values other than",
                 [](auto& checkpoint) {
                   const std::string bytes(300 * 32 * 2, '\x3c');
                   checkpoint.config["tie_word_embeddings"] = true;
                   checkpoint.tensors[kEmbedding] = {"BF16", {300, 32}, bytes};
                   checkpoint.tensors["lm_head.weight"] = {"F16", {300, 32}, bytes};
                 }),
      TensorCase("non_finite", "nan_f32", "input_layernorm.weight: got a NaN at value 31 of [32]",
                 [](auto& checkpoint) {
                   SetFirstValue(checkpoint.tensors[kNorm], std::string("\0\0\xc0\x7f", 4));
                 }),
      TensorCase("non_finite", "infinity_f32", "got an infinity at value 9599 of [300, 32]",
                 [](auto& checkpoint) {
                   SetFirstValue(checkpoint.tensors[kEmbedding], std::string("\0\0\x80\xff", 4));
                 }),
      TensorCase("non_finite", "nan_bf16", "got a NaN at value 31 of [32]",
                 [](auto& checkpoint) {
                   checkpoint.tensors[kNorm] = {"BF16", {32}, std::string(64, '\x3f')};
                   SetFirstValue(checkpoint.tensors[kNorm], "\x81\xff");
                 }),
      TensorCase("non_finite", "infinity_f16", "got an infinity at value 31 of [32]",
                 [](auto& checkpoint) {
                   checkpoint.tensors[kNorm] = {"F16", {32}, std::string(64, '\x3c')};
                   SetFirstValue(checkpoint.tensors[kNorm], std::string("\0\x7c", 2));
                 }),
  };
}

// --- The index and its shards ---

CorruptCheckpoint IndexCase(std::string name, std::string file, std::string fragment,
                            std::function<void(const std::string& dir)> spoil) {
  return {"index", std::move(name), std::move(file), std::move(fragment),
          nullptr, std::move(spoil)};
}

// One tensor's entry in the weight map.
CorruptCheckpoint MapCase(std::string name, std::string file, std::string fragment, json shard) {
  return IndexCase(std::move(name), std::move(file), std::move(fragment),
                   [shard = std::move(shard)](const std::string& dir) {
                     const std::string path = dir + "/" + kIndex;
                     json index = json::parse(ReadFile(path));
                     index["weight_map"][kEmbedding] = shard;
                     WriteFile(path, index.dump());
                   });
}

std::vector<CorruptCheckpoint> IndexCases() {
  const auto write_index = [](std::string text) {
    return
        [text = std::move(text)](const std::string& dir) { WriteFile(dir + "/" + kIndex, text); };
  };
  return {
      IndexCase("bad_json", kIndex, "bad JSON at byte", write_index("{\"weight_map\": ")),
      IndexCase("no_weight_map", kIndex, "no weight_map", write_index("{\"metadata\": {}}")),
      IndexCase("empty_weight_map", kIndex, "no weight_map", write_index("{\"weight_map\": {}}")),
      IndexCase("tensor_twice", kIndex, "key \"x\" stands twice",
                write_index(R"({"weight_map": {"x": "a.safetensors", "x": "b.safetensors"}})")),
      IndexCase("missing_shard", kShard2, "no such file, expected as",
                [](const std::string& dir) { std::filesystem::remove(dir + "/" + kShard2); }),
      IndexCase("spoilt_shard", kShard1, "header length",
                [](const std::string& dir) { WriteFile(dir + "/" + kShard1, "01234567"); }),
      IndexCase("exchanged_shards", kShard1, "unexpected here",
                [](const std::string& dir) {
                  const std::string first = ReadFile(dir + "/" + kShard1);
                  WriteFile(dir + "/" + kShard1, ReadFile(dir + "/" + kShard2));
                  WriteFile(dir + "/" + kShard2, first);
                }),
      IndexCase("tensor_in_no_shard", kShard1, "x: missing, expected here as the index says",
                [](const std::string& dir) {
                  json index = json::parse(ReadFile(dir + "/" + kIndex));
                  index["weight_map"]["x"] = kShard1;
                  WriteFile(dir + "/" + kIndex, index.dump());
                }),
      IndexCase("unlisted_tensor", kShard1, "expected every tensor to be listed in the index",
                [](const std::string& dir) {
                  json index = json::parse(ReadFile(dir + "/" + kIndex));
                  index["weight_map"].erase("lm_head.weight");
                  WriteFile(dir + "/" + kIndex, index.dump());
                }),
      MapCase("tensor_listed_elsewhere", kShard1, "embed_tokens.weight: missing, expected here",
              kShard1),
      MapCase("shard_of_another_folder", kIndex, "got \"../model.safetensors\", expected the plain",
              "../model.safetensors"),
      MapCase("shard_with_absolute_path", kIndex, "expected the plain name", "/tmp/m.safetensors"),
      MapCase("shard_number", kIndex, "got 1, expected the plain name", 1),
      MapCase("shard_of_another_format", kIndex, "expected the plain name", "model.bin"),
      IndexCase("no_weights_at_all", "", "expected model.safetensors or model.safetensors.index",
                [](const std::string& dir) { std::filesystem::remove(dir + "/" + kIndex); }),
      IndexCase(
          "folder_instead_of_file", kSingle, "not a regular file",
          [](const std::string& dir) { std::filesystem::create_directory(dir + "/" + kSingle); }),
  };
}

}  // namespace

std::vector<CorruptCheckpoint> CorruptCheckpoints() {
  std::vector<CorruptCheckpoint> all;
  for (std::vector<CorruptCheckpoint> cases :
       {FileCases(), HeaderCases(), EntryCases(), TensorCases(), IndexCases(), CorruptConfigs(),
        CorruptFamilies()}) {
    all.insert(all.end(), cases.begin(), cases.end());
  }
  return all;
}

void WriteCorruptCheckpoint(const CorruptCheckpoint& corrupt, const std::string& dir) {
  CheckpointToWrite checkpoint =
      corrupt.config.is_null() ? MakeTinyQwen3Moe({.num_shards = corrupt.kind == "index" ? 2 : 1})
                               : MakeTinyModel(corrupt.config);
  if (corrupt.spoil) corrupt.spoil(checkpoint);
  WriteCheckpoint(checkpoint, dir);
  if (corrupt.spoil_folder) corrupt.spoil_folder(dir);
}

}  // namespace gatehouse
