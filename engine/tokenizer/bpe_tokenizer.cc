#include "engine/tokenizer/bpe_tokenizer.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "engine/tokenizer/incremental_decoder.h"
#include "kernels/base/status_macros.h"
#include "kernels/base/utf8.h"

namespace gatehouse {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;  // positions in a word are int32_t

// The parts of `ranges` in [begin, end), counted from `begin`.
void RangesWithin(std::span<const ByteRange> ranges, size_t begin, size_t end,
                  std::vector<ByteRange>* within) {
  within->clear();
  auto range = std::lower_bound(ranges.begin(), ranges.end(), begin,
                                [](const ByteRange& each, size_t at) { return each.end <= at; });
  for (; range != ranges.end() && range->begin < end; ++range) {
    within->push_back({std::max(range->begin, begin) - begin, std::min(range->end, end) - begin});
  }
}

}  // namespace

struct BpeTokenizer::Scratch {
  NormalizerScratch normalizer;
  PreTokenizerScratch pre_tokenizer;
  BpeScratch bpe;
  std::vector<TextPiece> pieces;
  std::vector<ByteRange> plain_ranges;  // of the piece being encoded
};

absl::StatusOr<std::unique_ptr<BpeTokenizer>> BpeTokenizer::Make(TokenizerSpec spec) {
  GATEHOUSE_ASSIGN_OR_RETURN(Normalizer normalizer, Normalizer::Make(spec.normalizers));
  GATEHOUSE_ASSIGN_OR_RETURN(AddedTokens added_tokens,
                             AddedTokens::Make(spec.added_tokens, normalizer));
  GATEHOUSE_ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer, PreTokenizer::Make(spec.pre_tokenizers));
  Steps steps = {std::move(normalizer), std::move(added_tokens), std::move(pre_tokenizer)};
  const std::vector<AddedTokenSpec> tokens = spec.added_tokens;
  const DecoderSpec decoder = spec.decoder;
  std::unique_ptr<BpeTokenizer> tokenizer(new BpeTokenizer(std::move(spec), std::move(steps)));
  NormalizerScratch scratch;
  for (const AddedTokenSpec& token : tokens) {
    if (!token.normalized) continue;
    GATEHOUSE_ASSIGN_OR_RETURN(const std::string_view text,
                               tokenizer->steps_.normalizer.Apply(token.content, &scratch));
    tokenizer->vocabulary_.DecodeAs(token.id, std::string(text), decoder);
  }
  return tokenizer;
}

BpeTokenizer::BpeTokenizer(TokenizerSpec spec, Steps steps)
    : vocabulary_(spec),
      steps_(std::move(steps)),
      bpe_(spec.model, vocabulary_),
      templates_(std::move(spec.templates)),
      stripped_(std::move(spec.decoder.stripped)),
      max_stripped_(spec.decoder.max_stripped) {}

absl::StatusOr<std::vector<int32_t>> BpeTokenizer::Encode(std::string_view text,
                                                          const EncodeOptions& options) const {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("text has %d bytes, expected at most %d", text.size(), kMaxTextBytes));
  }
  if (const size_t offset = FindInvalidUtf8(text); offset < text.size()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("text is not UTF-8 at byte %d of %d", offset, text.size()));
  }
  std::vector<int32_t> ids;
  const TemplateSpec* const around =
      options.add_special_tokens && !templates_.empty() ? &templates_[0] : nullptr;
  if (around != nullptr) ids = around->prefix_ids;
  Scratch scratch;
  std::vector<TextPiece> pieces;
  steps_.added_tokens.SplitRaw(text, options.parse_special, options.plain_ranges, &pieces);
  for (const TextPiece& piece : pieces) {
    if (piece.token_id >= 0) {
      ids.push_back(piece.token_id);
      continue;
    }
    const auto begin = static_cast<size_t>(piece.text.data() - text.data());
    RangesWithin(options.plain_ranges, begin, begin + piece.text.size(), &scratch.plain_ranges);
    const bool is_start = begin == 0;
    GATEHOUSE_RETURN_IF_ERROR(
        EncodeRest(piece.text, is_start, options.parse_special, &scratch, &ids));
  }
  if (around != nullptr) {
    ids.insert(ids.end(), around->suffix_ids.begin(), around->suffix_ids.end());
  }
  return ids;
}

// `text` has no more raw added tokens in it; `is_start`: it begins what the user wrote.
absl::Status BpeTokenizer::EncodeRest(std::string_view text, bool is_start, bool parse_special,
                                      Scratch* scratch, std::vector<int32_t>* ids) const {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::string_view normalized,
                             steps_.normalizer.Apply(text, &scratch->normalizer));
  // Where normalizing changed a text that is partly plain, nobody knows which part is which: then
  // special tokens that are looked for in normalized text are not found. Few tokenizers have any.
  const bool has_plain = !scratch->plain_ranges.empty();
  if (has_plain && normalized != text) scratch->plain_ranges = {{0, normalized.size()}};
  scratch->pieces.clear();
  steps_.added_tokens.SplitNormalized(normalized, parse_special, scratch->plain_ranges,
                                      &scratch->pieces);
  for (const TextPiece& piece : scratch->pieces) {
    if (piece.token_id >= 0) {
      ids->push_back(piece.token_id);
      continue;
    }
    const bool is_first = is_start && &piece == &scratch->pieces.front();
    GATEHOUSE_RETURN_IF_ERROR(
        steps_.pre_tokenizer.Split(piece.text, is_first, &scratch->pre_tokenizer));
    for (std::string_view word : scratch->pre_tokenizer.words) {
      bpe_.Encode(word, parse_special && !has_plain, &scratch->bpe, ids);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> BpeTokenizer::Decode(const std::vector<int32_t>& ids,
                                                 bool skip_special_tokens) const {
  IncrementalDecoder decoder(*this, skip_special_tokens);
  std::string text;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!vocabulary_.Contains(ids[i])) {
      return absl::InvalidArgumentError(
          absl::StrFormat("token id %d at index %d is not in the vocabulary, expected ids below %d",
                          ids[i], i, vocab_size()));
    }
    text += decoder.Append(ids[i]);
  }
  text += decoder.Flush();
  return text;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& model_dir) {
  GATEHOUSE_ASSIGN_OR_RETURN(TokenizerSpec spec, ReadTokenizerJson(model_dir + "/tokenizer.json"));
  return BpeTokenizer::Make(std::move(spec));
}

}  // namespace gatehouse
