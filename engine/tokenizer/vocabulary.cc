#include "engine/tokenizer/vocabulary.h"

#include <algorithm>

#include "engine/tokenizer/byte_alphabet.h"

namespace gatehouse {
namespace {

std::string ReplaceAll(std::string text, std::string_view what, std::string_view with) {
  for (size_t at = text.find(what); at != std::string::npos;
       at = text.find(what, at + with.size())) {
    text.replace(at, what.size(), with);
  }
  return text;
}

// <0xE2>: the byte E2.
std::optional<char> ByteOf(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return std::nullopt;
  int byte = 0;
  for (const char c : text.substr(3, 2)) {
    const char lower = static_cast<char>(c | 0x20);
    const bool is_digit = c >= '0' && c <= '9';
    if (!is_digit && (lower < 'a' || lower > 'f')) return std::nullopt;
    byte = byte * 16 + (is_digit ? c - '0' : lower - 'a' + 10);
  }
  return static_cast<char>(byte);
}

}  // namespace

Vocabulary::Vocabulary(const TokenizerSpec& spec) {
  int32_t highest_id = -1;
  for (const auto& [text, id] : spec.model.vocab) highest_id = std::max(highest_id, id);
  for (const AddedTokenSpec& token : spec.added_tokens) highest_id = std::max(highest_id, token.id);
  tokens_.resize(highest_id + 1);
  text_to_id_.reserve(spec.model.vocab.size() + spec.added_tokens.size());
  for (const auto& [text, id] : spec.model.vocab) Add(text, id, false, spec.decoder);
  for (const AddedTokenSpec& token : spec.added_tokens) {
    Add(token.content, token.id, token.special, spec.decoder);
  }
}

Vocabulary::Span Vocabulary::Store(std::string_view bytes) {
  const Span span = {static_cast<uint32_t>(bytes_.size()), static_cast<uint32_t>(bytes.size())};
  bytes_ += bytes;
  return span;
}

void Vocabulary::Add(const std::string& text, int32_t id, bool is_special,
                     const DecoderSpec& decoder) {
  text_to_id_.emplace(text, id);
  Token& token = tokens_[id];
  token.is_special = is_special;
  if (token.is_known) return;  // an added token that the model has, with the same text
  token.is_known = true;
  DecodeAs(id, text, decoder);
  token.word = decoder.is_byte_level ? token.bytes : Store(text);
}

void Vocabulary::DecodeAs(int32_t id, const std::string& text, const DecoderSpec& decoder) {
  Token& token = tokens_[id];
  if (decoder.is_byte_level) {
    token.bytes = token.first_bytes = Store(LettersToBytes(text).value_or(text));
    return;
  }
  std::string middle = text;
  std::string first = text;
  if (const auto& replace = decoder.replacement) {
    middle = ReplaceAll(text, replace->text, replace->content);
    first = ReplaceAll(text, replace->text, replace->first_content);
  }
  const std::optional<char> byte = decoder.byte_fallback ? ByteOf(middle) : std::nullopt;
  token.is_byte = byte.has_value();
  if (byte.has_value()) middle = first = std::string(1, *byte);
  token.bytes = token.first_bytes = Store(middle);
  if (first != middle) token.first_bytes = Store(first);
}

std::string_view Vocabulary::Word(int32_t id) const {
  return InRange(id) ? BytesOf(tokens_[id].word) : std::string_view();
}

std::string_view Vocabulary::Bytes(int32_t id) const {
  return InRange(id) ? BytesOf(tokens_[id].bytes) : std::string_view();
}

std::string_view Vocabulary::FirstBytes(int32_t id) const {
  return InRange(id) ? BytesOf(tokens_[id].first_bytes) : std::string_view();
}

std::optional<int32_t> Vocabulary::IdOf(std::string_view text) const {
  const auto found = text_to_id_.find(std::string(text));
  if (found == text_to_id_.end()) return std::nullopt;
  return found->second;
}

}  // namespace gatehouse
