// A regular expression of tokenizer.json, compiled by PCRE2 with its JIT (or interpreted where the
// machine forbids to run made code; the matches are the same). Immutable, any thread: what a search
// writes to lives in the caller's RegexScratch.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/tokenizer_json.h"

struct pcre2_real_code_8;
struct pcre2_real_match_context_8;
struct pcre2_real_match_data_8;
struct pcre2_real_jit_stack_8;

namespace gatehouse {

struct PcreDeleter {
  void operator()(pcre2_real_code_8* code) const;
  void operator()(pcre2_real_match_context_8* context) const;
  void operator()(pcre2_real_match_data_8* match_data) const;
  void operator()(pcre2_real_jit_stack_8* stack) const;
};

template <typename T>
using PcrePointer = std::unique_ptr<T, PcreDeleter>;

// For one thread at a time; serves any number of expressions. Empty until the first search.
class RegexScratch {
 private:
  friend class Regex;
  void Allocate();

  PcrePointer<pcre2_real_match_data_8> match_data_;
  PcrePointer<pcre2_real_jit_stack_8> jit_stack_;
  PcrePointer<pcre2_real_match_context_8> context_;
};

// text[begin, end) in bytes.
struct RegexMatch {
  size_t begin;
  size_t end;
};

class Regex {
 public:
  // `pattern` in Oniguruma's syntax; INVALID_ARGUMENT when it is refused (regex_syntax.h) or does
  // not compile.
  static absl::StatusOr<Regex> Compile(std::string_view pattern);

  // All matches from left to right, not overlapping; an empty one is not taken right behind another
  // match. `text` must be UTF-8. RESOURCE_EXHAUSTED when one search needs too many steps.
  absl::Status FindAll(std::string_view text, RegexScratch* scratch,
                       std::vector<RegexMatch>* matches) const;

 private:
  explicit Regex(PcrePointer<pcre2_real_code_8> code) : code_(std::move(code)) {}

  PcrePointer<pcre2_real_code_8> code_;
};

// A pattern of tokenizer.json: an expression, or plain text that is looked for as it stands.
// Immutable, any thread.
class Pattern {
 public:
  // FAILED_PRECONDITION names the place of an expression that does not compile.
  static absl::StatusOr<Pattern> Compile(const PatternSpec& spec);
  // As Regex::FindAll.
  absl::Status FindAll(std::string_view text, RegexScratch* scratch,
                       std::vector<RegexMatch>* matches) const;

 private:
  Pattern(std::optional<Regex> regex, std::string text)
      : regex_(std::move(regex)), text_(std::move(text)) {}

  std::optional<Regex> regex_;
  std::string text_;  // where there is no regex_
};

}  // namespace gatehouse
