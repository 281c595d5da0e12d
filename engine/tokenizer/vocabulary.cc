#include "engine/tokenizer/vocabulary.h"

#include <algorithm>

#include "engine/tokenizer/byte_alphabet.h"

namespace gatehouse {

Vocabulary::Vocabulary(const TokenizerSpec& spec) {
  int32_t highest_id = -1;
  for (const auto& [text, id] : spec.model.vocab) highest_id = std::max(highest_id, id);
  for (const AddedTokenSpec& token : spec.added_tokens) highest_id = std::max(highest_id, token.id);
  tokens_.resize(highest_id + 1);
  text_to_id_.reserve(spec.model.vocab.size() + spec.added_tokens.size());
  for (const auto& [text, id] : spec.model.vocab) Add(text, id, /*is_special=*/false);
  for (const AddedTokenSpec& token : spec.added_tokens) Add(token.content, token.id, token.special);
}

void Vocabulary::Add(const std::string& text, int32_t id, bool is_special) {
  text_to_id_.emplace(text, id);
  Token& token = tokens_[id];
  token.is_special = is_special;
  if (token.is_known) return;  // an added token that the model has, with the same text
  const std::optional<std::string> bytes = LettersToBytes(text);
  const std::string& decoded = bytes.has_value() ? *bytes : text;
  token.is_known = true;
  token.begin = static_cast<uint32_t>(bytes_.size());
  token.num_bytes = static_cast<uint32_t>(decoded.size());
  bytes_ += decoded;
}

std::string_view Vocabulary::Bytes(int32_t id) const {
  if (!InRange(id)) return {};
  return std::string_view(bytes_).substr(tokens_[id].begin, tokens_[id].num_bytes);
}

std::optional<int32_t> Vocabulary::IdOf(std::string_view text) const {
  const auto found = text_to_id_.find(std::string(text));
  if (found == text_to_id_.end()) return std::nullopt;
  return found->second;
}

}  // namespace gatehouse
