// All tokens of a tokenizer: text, bytes, and whether they are special. Once built, any thread.
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
  // Makes the token decode as `text` would: Hugging Face does so with an added token that is
  // normalized, `text` being what the normalizer makes of it.
  void DecodeAs(int32_t id, const std::string& text, const DecoderSpec& decoder);

  // The word of a text that is this token, in bytes; empty for unknown ids.
  std::string_view Word(int32_t id) const;
  // What the token decodes to, empty for unknown ids. Byte-level: the bytes its letters stand for,
  // or its text as it is when one character is outside the byte alphabet (Hugging Face treats added
  // tokens so, too). Else its text with the decoder's replacements, or its byte.
  std::string_view Bytes(int32_t id) const;
  std::string_view FirstBytes(int32_t id) const;  // the same at the start of a text
  bool IsByte(int32_t id) const { return InRange(id) && tokens_[id].is_byte; }
  std::optional<int32_t> IdOf(std::string_view text) const;

 private:
  struct Span {  // of bytes_
    uint32_t begin = 0;
    uint32_t num_bytes = 0;
  };
  struct Token {
    Span word;
    Span bytes;
    Span first_bytes;
    bool is_known = false;
    bool is_special = false;
    bool is_byte = false;
  };

  bool InRange(int32_t id) const { return id >= 0 && id < num_ids(); }
  void Add(const std::string& text, int32_t id, bool is_special, const DecoderSpec& decoder);
  Span Store(std::string_view bytes);
  std::string_view BytesOf(Span span) const {
    return std::string_view(bytes_).substr(span.begin, span.num_bytes);
  }

  std::vector<Token> tokens_;  // [num_ids]
  std::string bytes_;
  std::unordered_map<std::string, int32_t> text_to_id_;
};

}  // namespace gatehouse
