#include "engine/tokenizer/bpe_tokenizer.h"

#include <algorithm>

#include "absl/strings/str_format.h"
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
  PreTokenizerScratch pre_tokenizer;
  BpeScratch bpe;
  std::string normalized;
  std::vector<TextPiece> pieces;
  std::vector<ByteRange> plain_ranges;  // of the piece being encoded
};

absl::StatusOr<std::unique_ptr<BpeTokenizer>> BpeTokenizer::Make(TokenizerSpec spec) {
  GATEHOUSE_ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer, PreTokenizer::Make(spec.pre_tokenizers));
  return std::unique_ptr<BpeTokenizer>(new BpeTokenizer(std::move(spec), std::move(pre_tokenizer)));
}

BpeTokenizer::BpeTokenizer(TokenizerSpec spec, PreTokenizer pre_tokenizer)
    : vocabulary_(spec),
      normalizer_(std::move(spec.normalizers)),
      added_tokens_(std::move(spec.added_tokens), normalizer_),
      pre_tokenizer_(std::move(pre_tokenizer)),
      bpe_(spec.model, vocabulary_),
      templates_(std::move(spec.templates)) {}

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
  added_tokens_.SplitRaw(text, options.parse_special, options.plain_ranges, &pieces);
  for (const TextPiece& piece : pieces) {
    if (piece.token_id >= 0) {
      ids.push_back(piece.token_id);
      continue;
    }
    const auto begin = static_cast<size_t>(piece.text.data() - text.data());
    RangesWithin(options.plain_ranges, begin, begin + piece.text.size(), &scratch.plain_ranges);
    GATEHOUSE_RETURN_IF_ERROR(EncodeRest(piece.text, options.parse_special, &scratch, &ids));
  }
  if (around != nullptr) {
    ids.insert(ids.end(), around->suffix_ids.begin(), around->suffix_ids.end());
  }
  return ids;
}

// `text` has no more raw added tokens in it.
absl::Status BpeTokenizer::EncodeRest(std::string_view text, bool parse_special, Scratch* scratch,
                                      std::vector<int32_t>* ids) const {
  const std::string_view normalized = normalizer_.Apply(text, &scratch->normalized);
  // Where normalizing changed a text that is partly plain, nobody knows which part is which: then
  // special tokens that are looked for in normalized text are not found. Few tokenizers have any.
  const bool has_plain = !scratch->plain_ranges.empty();
  if (has_plain && normalized != text) scratch->plain_ranges = {{0, normalized.size()}};
  scratch->pieces.clear();
  added_tokens_.SplitNormalized(normalized, parse_special, scratch->plain_ranges, &scratch->pieces);
  for (const TextPiece& piece : scratch->pieces) {
    if (piece.token_id >= 0) {
      ids->push_back(piece.token_id);
      continue;
    }
    GATEHOUSE_RETURN_IF_ERROR(pre_tokenizer_.Split(piece.text, &scratch->pre_tokenizer));
    for (std::string_view word : scratch->pre_tokenizer.words) {
      bpe_.Encode(word, parse_special && !has_plain, &scratch->bpe, ids);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> BpeTokenizer::Decode(const std::vector<int32_t>& ids,
                                                 bool skip_special_tokens) const {
  std::string bytes;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!vocabulary_.Contains(ids[i])) {
      return absl::InvalidArgumentError(
          absl::StrFormat("token id %d at index %d is not in the vocabulary, expected ids below %d",
                          ids[i], i, vocab_size()));
    }
    if (skip_special_tokens && IsSpecial(ids[i])) continue;
    bytes += vocabulary_.Bytes(ids[i]);
  }
  std::string text;
  if (AppendUtf8Lossy(bytes, &text) > 0) text += kReplacementCharacter;
  return text;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& model_dir) {
  GATEHOUSE_ASSIGN_OR_RETURN(TokenizerSpec spec, ReadTokenizerJson(model_dir + "/tokenizer.json"));
  return BpeTokenizer::Make(std::move(spec));
}

}  // namespace gatehouse
