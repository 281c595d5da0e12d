// The pre-tokenizer steps of tokenizer.json: cuts a text into the words that BPE joins within.
// Immutable, any thread; what a call writes to lives in its PreTokenizerScratch.
//
// ByteLevel's mapping of bytes to printable letters is left out: Bpe takes the bytes themselves.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/regex.h"
#include "engine/tokenizer/tokenizer_json.h"

namespace gatehouse {

// For one thread at a time. The words of a call point into its text and into this.
struct PreTokenizerScratch {
  RegexScratch regex;
  std::vector<RegexMatch> matches;
  std::vector<std::string_view> words;
  std::vector<std::string_view> next_words;
  std::deque<std::string> changed;  // words that got spaces or marks
  bool is_start = false;            // the words are those at the start of the whole text
};

class PreTokenizerStep {
 public:
  virtual ~PreTokenizerStep() = default;
  // Appends the parts of `word`, which is not empty, to scratch->next_words.
  virtual absl::Status Split(std::string_view word, PreTokenizerScratch* scratch) const = 0;
};

class PreTokenizer {
 public:
  // FAILED_PRECONDITION names the place of an expression that does not compile.
  static absl::StatusOr<PreTokenizer> Make(const std::vector<PreTokenizerSpec>& specs);
  // Fills scratch->words, none of them empty; replaces what was there. `text` must be UTF-8;
  // `is_start`: it begins what the user wrote. RESOURCE_EXHAUSTED from Regex.
  absl::Status Split(std::string_view text, bool is_start, PreTokenizerScratch* scratch) const;

 private:
  std::vector<std::unique_ptr<PreTokenizerStep>> steps_;
};

}  // namespace gatehouse
