// tokenizer.json as plain values, each checked: what comes out can be built without further errors,
// but for regular expressions, which only their compiler can judge.
//
// Refused, because they would change ids in a way this module does not follow: unknown keys and
// step types, dropout, prefixes and suffixes of subwords, truncation, padding to a length, a
// decoder that is not byte-level, merges or templates that name unknown tokens, ids given twice.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/json_node.h"

namespace gatehouse {

enum class NormalForm { kNfc };

enum class SplitBehavior {
  kRemoved,
  kIsolated,
  kMergedWithPrevious,
  kMergedWithNext,
  kContiguous,
};

struct SplitSpec {
  std::string pattern;
  bool is_regex = true;  // else the pattern is plain text
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // split off what does not match
  std::string place;    // "<file>: <json path>", for errors of the regex compiler
};

struct ByteLevelSpec {
  bool add_prefix_space = false;
  bool use_regex = true;  // split by GPT-2's pattern first
};

using PreTokenizerSpec = std::variant<SplitSpec, ByteLevelSpec>;

// What the post-processor puts around the ids of a text when special tokens are asked for.
struct TemplateSpec {
  std::vector<int32_t> prefix_ids;
  std::vector<int32_t> suffix_ids;
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
  std::vector<std::pair<std::string, int32_t>> vocab;  // distinct texts, distinct ids
  std::vector<MergeSpec> merges;                       // by rank
  std::optional<int32_t> unk_id;
  bool fuse_unk = false;
  bool ignore_merges = false;
};

struct TokenizerSpec {
  std::vector<NormalForm> normalizers;
  std::vector<PreTokenizerSpec> pre_tokenizers;  // the last one is the only ByteLevelSpec
  std::vector<TemplateSpec> templates;           // at most one
  std::vector<AddedTokenSpec> added_tokens;      // in the order of the file
  BpeSpec model;
};

// `path` is the file itself. FAILED_PRECONDITION as in json_node.h.
absl::StatusOr<TokenizerSpec> ReadTokenizerJson(const std::string& path);

// The parts, for `root` = the whole document (tokenizer_json_steps.cc). Templates need the tokens
// to be known, so they are read last.
absl::Status ReadNormalizers(const JsonNode& root, TokenizerSpec* spec);
absl::Status ReadPreTokenizers(const JsonNode& root, TokenizerSpec* spec);
absl::Status ReadPostProcessors(const JsonNode& root, TokenizerSpec* spec);
absl::Status CheckDecoder(const JsonNode& root);

}  // namespace gatehouse
