// Text to token ids and back. Immutable after loading; any thread.
//
// Ids and texts equal those of Hugging Face `tokenizers` 0.23 (tests/tokenizer/parity_test.cc),
// with its Unicode versions: 9 for NFC, 16 for the classes of regular expressions. Two differences
// are on purpose: without parse_special no merge and no whole word makes a special token either,
// and skip_special_tokens skips a special token also where a normalizer changes its text.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace gatehouse {

// Bytes [begin, end) of a text.
struct ByteRange {
  size_t begin = 0;
  size_t end = 0;
  bool operator==(const ByteRange&) const = default;
};

struct EncodeOptions {
  bool add_special_tokens = true;  // what the post-processor adds (BOS, EOS)
  bool parse_special =
      false;  // text such as <|im_start|> becomes the special token; else it is plain text
  // With parse_special: no byte of these becomes part of a special token. Ascending, apart, on
  // borders of characters; all else is encoded as if they were not there.
  std::span<const ByteRange> plain_ranges = {};
};

// Up to max_times copies of `character` are dropped from the start of a decoded text.
struct LeadingStrip {
  std::string_view character;
  int32_t max_times = 0;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // INVALID_ARGUMENT for text that is not UTF-8 (with the byte offset); RESOURCE_EXHAUSTED when the
  // pre-tokenizer's match limit is reached.
  virtual absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                                      const EncodeOptions& options) const = 0;
  // Ids outside the vocabulary, its holes too, are INVALID_ARGUMENT. Invalid UTF-8 becomes U+FFFD,
  // as in Hugging Face tokenizers.
  virtual absl::StatusOr<std::string> Decode(const std::vector<int32_t>& ids,
                                             bool skip_special_tokens) const = 0;
  // The bytes that `id` adds to a text: the unit of incremental decoding. Empty for ids outside the
  // vocabulary.
  virtual std::string_view TokenBytes(int32_t id) const = 0;
  // The same for the first token of a text, where some tokenizers drop the mark of a space.
  virtual std::string_view FirstTokenBytes(int32_t id) const { return TokenBytes(id); }
  // One byte of byte fallback. Neighbours of them are one run, which is UTF-8 or else U+FFFD for
  // each byte; in all other tokenizers the bytes of all tokens join before they are read.
  virtual bool IsByteToken(int32_t /*id*/) const { return false; }
  virtual LeadingStrip leading_strip() const { return {}; }
  virtual bool IsSpecial(int32_t id) const = 0;
  virtual std::optional<int32_t> TokenToId(std::string_view token) const = 0;
  virtual int32_t vocab_size() const = 0;  // highest id + 1, added tokens included
};

// Reads DIR/tokenizer.json. FAILED_PRECONDITION "<file>: <problem>, expected <what>" for anything
// it cannot honour exactly: a tokenizer that almost works gives wrong answers.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& model_dir);

}  // namespace gatehouse
