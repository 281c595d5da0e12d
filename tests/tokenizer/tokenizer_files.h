// The tokenizers and answers that tests/tokenizer/make_corpus.py made, and what tests share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/tokenizer.h"

namespace gatehouse {

inline std::string TokenizerTestPath(const std::string& name) {
  return std::string(GATEHOUSE_SOURCE_DIR) + "/tests/tokenizer/data/" + name;
}

// "demo" or the name of a folder in tests/tokenizer/data.
inline std::string TokenizerDir(const std::string& name) {
  return name == "demo" ? std::string(GATEHOUSE_SOURCE_DIR) + "/models/demo"
                        : TokenizerTestPath(name);
}

inline std::unique_ptr<Tokenizer> LoadTestTokenizer(const std::string& name) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadTokenizer(TokenizerDir(name));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

inline nlohmann::json ReadJsonFile(const std::string& path) {
  std::ifstream stream(path);
  EXPECT_TRUE(stream.good()) << path;
  return nlohmann::json::parse(stream, nullptr, false);
}

inline std::vector<nlohmann::json> ReadJsonLines(const std::string& path) {
  std::ifstream stream(path);
  EXPECT_TRUE(stream.good()) << path;
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(stream, line);) {
    lines.push_back(nlohmann::json::parse(line, nullptr, false));
  }
  return lines;
}

// corpus.jsonl: see make_corpus.py.
struct Corpus {
  std::vector<std::string> tokenizers;  // in the order of the answers
  std::vector<nlohmann::json> lines;

  size_t IndexOf(const std::string& name) const {
    const auto found = std::find(tokenizers.begin(), tokenizers.end(), name);
    EXPECT_NE(found, tokenizers.end()) << name;
    return static_cast<size_t>(found - tokenizers.begin());
  }
};

inline Corpus ReadCorpus() {
  Corpus corpus = {.lines = ReadJsonLines(TokenizerTestPath("corpus.jsonl"))};
  corpus.tokenizers = corpus.lines.at(0)["tokenizers"].get<std::vector<std::string>>();
  corpus.lines.erase(corpus.lines.begin());
  return corpus;
}

// variants.json applied to the documents that they change, in the order of the answers.
struct Variant {
  std::string base;
  std::string name;
  nlohmann::json document;
};

inline std::vector<Variant> ReadVariants() {
  std::vector<Variant> variants;
  const nlohmann::json all = ReadJsonFile(TokenizerTestPath("variants.json"));
  for (const auto& [base, patches] : all.items()) {
    const nlohmann::json document = ReadJsonFile(TokenizerDir(base) + "/tokenizer.json");
    for (const auto& [name, changes] : patches.items()) {
      Variant& variant = variants.emplace_back(Variant{base, name, document});
      for (const auto& [key, value] : changes.items()) {
        if (key == "model") {
          variant.document[key].update(value);
        } else {
          variant.document[key] = value;
        }
      }
    }
  }
  return variants;
}

// A model directory of its own with the given tokenizer.json; gone with the object.
class TemporaryTokenizer {
 public:
  explicit TemporaryTokenizer(const std::string& text) {
    std::string name = (std::filesystem::temp_directory_path() / "gatehouse-XXXXXX").string();
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    dir_ = name;
    std::ofstream(path(), std::ios::binary) << text;
  }
  ~TemporaryTokenizer() {
    std::error_code error;
    std::filesystem::remove_all(dir_, error);
  }
  TemporaryTokenizer(const TemporaryTokenizer&) = delete;
  TemporaryTokenizer& operator=(const TemporaryTokenizer&) = delete;

  const std::string& dir() const { return dir_; }
  std::string path() const { return dir_ + "/tokenizer.json"; }

 private:
  std::string dir_;
};

// CRC-32 as in zlib.
inline uint32_t Crc32(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0u);
  }
  return ~crc;
}

// Of the ids as little-endian int32.
inline uint32_t Crc32OfIds(const std::vector<int32_t>& ids) {
  std::string bytes;
  for (const int32_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      bytes.push_back(static_cast<char>(static_cast<uint32_t>(id) >> shift));
    }
  }
  return Crc32(bytes);
}

}  // namespace gatehouse
