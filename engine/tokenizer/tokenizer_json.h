// tokenizer.json as plain values, each checked: what comes out can be built without further errors,
// but for regular expressions, which only their compiler can judge.
//
// Refused, because they would change ids in a way this module does not follow: unknown keys and
// step types, dropout, prefixes and suffixes of subwords, truncation, padding to a length, decoder
// steps in another order than that of DecoderSpec, merges or templates that name unknown tokens,
// ids given twice.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

namespace gatehouse {

class JsonFields;

struct PatternSpec {
  std::string text;
  bool is_regex = true;  // else plain text
  std::string place;     // "<file>: <json path>", for errors of the regex compiler
};

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
struct LowercaseSpec {};
struct StripSpec {
  bool left = false;
  bool right = false;
};
struct ReplaceSpec {
  PatternSpec pattern;
  std::string content;
};
struct PrependSpec {
  std::string text;
};
using NormalizerSpec = std::variant<NormalForm, LowercaseSpec, StripSpec, ReplaceSpec, PrependSpec>;

enum class SplitBehavior {
  kRemoved,
  kIsolated,
  kMergedWithPrevious,
  kMergedWithNext,
  kContiguous,
};

struct SplitSpec {  // Digits, too
  PatternSpec pattern;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // split off what does not match
};

struct ByteLevelSpec {
  bool add_prefix_space = false;
  bool use_regex = true;  // split by GPT-2's pattern first
};

enum class PrependScheme { kAlways, kFirst, kNever };

struct MetaspaceSpec {
  std::string mark;  // one character, stands for a space
  PrependScheme prepend_scheme = PrependScheme::kAlways;
  bool split = true;  // before every mark
};

using PreTokenizerSpec = std::variant<SplitSpec, ByteLevelSpec, MetaspaceSpec>;

// What the post-processor puts around the ids of a text when special tokens are asked for.
struct TemplateSpec {
  std::vector<int32_t> prefix_ids;
  std::vector<int32_t> suffix_ids;
};

// Replace or Metaspace: in each token for itself.
struct TokenReplaceSpec {
  std::string text;
  std::string content;
  std::string first_content;  // in the first token of a text, where Metaspace drops its marks
};

// Either ByteLevel alone, or Replace or Metaspace, ByteFallback, Fuse, Strip in this order, each of
// which may be missing (Strip needs Fuse).
struct DecoderSpec {
  bool is_byte_level = true;
  std::optional<TokenReplaceSpec> replacement;
  bool byte_fallback = false;  // <0xE2> is the byte E2
  std::string stripped;        // one character, dropped from the start of a text,
  int32_t max_stripped = 0;    // up to so many times
};

struct AddedTokenSpec {
  int32_t id = 0;
  std::string content;
  bool single_word = false;
  bool lstrip = false;
  bool rstrip = false;
  bool normalized = false;
  bool special = false;
};

struct MergeSpec {
  int32_t left_id = 0;
  int32_t right_id = 0;
  int32_t merged_id = 0;
};

struct BpeSpec {
  bool is_byte_level = true;  // a word is bytes, written by letters in `vocab`; else characters
  std::vector<std::pair<std::string, int32_t>> vocab;  // distinct texts, distinct ids
  std::vector<MergeSpec> merges;                       // by rank
  std::optional<int32_t> unk_id;
  bool fuse_unk = false;
  bool ignore_merges = false;
  std::vector<int32_t> byte_ids;  // [256] of <0x00> to <0xFF> with byte_fallback, else empty
};

struct TokenizerSpec {
  std::vector<NormalizerSpec> normalizers;
  std::vector<PreTokenizerSpec> pre_tokenizers;  // only the last one may be a ByteLevelSpec
  std::vector<TemplateSpec> templates;           // at most one
  std::vector<AddedTokenSpec> added_tokens;      // in the order of the file
  DecoderSpec decoder;
  BpeSpec model;
};

// `path` is the file itself. FAILED_PRECONDITION as in json_fields.h.
absl::StatusOr<TokenizerSpec> ReadTokenizerJson(const std::string& path);

// The parts, for `root` = the whole document, whose status they leave their problems in. The lists
// of steps are in tokenizer_json_steps.cc; templates need the tokens to be known.
void ReadNormalizers(JsonFields& root, TokenizerSpec* spec);
void ReadPreTokenizers(JsonFields& root, TokenizerSpec* spec);
void ReadPostProcessors(JsonFields& root, TokenizerSpec* spec);
void ReadDecoder(JsonFields& root, TokenizerSpec* spec);

}  // namespace gatehouse
