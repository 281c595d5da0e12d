// BPE of bytes or characters as Hugging Face `tokenizers` does it:
//   text -> added tokens -> normalizer -> added tokens -> pre-tokenizer -> BPE -> template -> ids
// Immutable, any thread; each call has buffers of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/pre_tokenizer.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/tokenizer_json.h"
#include "engine/tokenizer/vocabulary.h"

namespace gatehouse {

class BpeTokenizer : public Tokenizer {
 public:
  // FAILED_PRECONDITION for a regular expression that can not be followed.
  static absl::StatusOr<std::unique_ptr<BpeTokenizer>> Make(TokenizerSpec spec);
  BpeTokenizer(const BpeTokenizer&) = delete;  // bpe_ refers to vocabulary_
  BpeTokenizer& operator=(const BpeTokenizer&) = delete;

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              const EncodeOptions& options) const override;
  absl::StatusOr<std::string> Decode(const std::vector<int32_t>& ids,
                                     bool skip_special_tokens) const override;
  std::string_view TokenBytes(int32_t id) const override { return vocabulary_.Bytes(id); }
  std::string_view FirstTokenBytes(int32_t id) const override { return vocabulary_.FirstBytes(id); }
  bool IsByteToken(int32_t id) const override { return vocabulary_.IsByte(id); }
  LeadingStrip leading_strip() const override { return {stripped_, max_stripped_}; }
  bool IsSpecial(int32_t id) const override { return vocabulary_.IsSpecial(id); }
  std::optional<int32_t> TokenToId(std::string_view token) const override {
    return vocabulary_.IdOf(token);
  }
  int32_t vocab_size() const override { return vocabulary_.num_ids(); }

 private:
  struct Scratch;

  struct Steps {
    Normalizer normalizer;
    AddedTokens added_tokens;
    PreTokenizer pre_tokenizer;
  };

  BpeTokenizer(TokenizerSpec spec, Steps steps);
  absl::Status EncodeRest(std::string_view text, bool is_start, bool parse_special,
                          Scratch* scratch, std::vector<int32_t>* ids) const;

  Vocabulary vocabulary_;
  Steps steps_;
  Bpe bpe_;
  std::vector<TemplateSpec> templates_;
  std::string stripped_;
  int32_t max_stripped_;
};

}  // namespace gatehouse
