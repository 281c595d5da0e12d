// All tokens of a tokenizer: text, bytes, and whether they are special. Immutable, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/tokenizer/tokenizer_json.h"

namespace gatehouse {

class Vocabulary {
 public:
  explicit Vocabulary(const TokenizerSpec& spec);

  int32_t num_ids() const { return static_cast<int32_t>(tokens_.size()); }  // highest id + 1
  bool Contains(int32_t id) const { return InRange(id) && tokens_[id].is_known; }
  bool IsSpecial(int32_t id) const { return InRange(id) && tokens_[id].is_special; }
  // What the token decodes to, empty for unknown ids: the bytes its letters stand for, or its text
  // as it is when one character is outside the byte alphabet (Hugging Face treats added tokens so,
  // too).
  std::string_view Bytes(int32_t id) const;
  std::optional<int32_t> IdOf(std::string_view text) const;

 private:
  struct Token {
    uint32_t begin = 0;  // in bytes_
    uint32_t num_bytes = 0;
    bool is_known = false;
    bool is_special = false;
  };

  bool InRange(int32_t id) const { return id >= 0 && id < num_ids(); }
  void Add(const std::string& text, int32_t id, bool is_special);

  std::vector<Token> tokens_;  // [num_ids]
  std::string bytes_;
  std::unordered_map<std::string, int32_t> text_to_id_;
};

}  // namespace gatehouse
