// The normalizer steps of tokenizer.json. Immutable, any thread.
//
// NFC and its kin are here those of Hugging Face `tokenizers`, whose tables are of Unicode 9: the
// marks that came later have no combining class in them, and later characters do not decompose.
// utf8proc knows Unicode 15; the newer code points are passed through as what they are to Hugging
// Face. The ids a model was trained with matter more than the newest standard.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/regex.h"
#include "engine/tokenizer/tokenizer_json.h"

namespace gatehouse {

// For one thread at a time.
struct NormalizerScratch {
  RegexScratch regex;
  std::vector<RegexMatch> matches;
  std::string current;  // the text so far, once a step changed it
  std::string next;     // what a step writes
};

class NormalizerStep {
 public:
  virtual ~NormalizerStep() = default;
  // Writes the changed text to scratch->next and returns true, or returns false: nothing changes.
  virtual absl::StatusOr<bool> Apply(std::string_view text, NormalizerScratch* scratch) const = 0;
};

class Normalizer {
 public:
  // FAILED_PRECONDITION names the place of an expression that does not compile.
  static absl::StatusOr<Normalizer> Make(const std::vector<NormalizerSpec>& specs);
  // `text` must be UTF-8. The answer is a view of `text` when nothing changes, else of *scratch.
  // RESOURCE_EXHAUSTED from Pattern, or when the text grows beyond 1 GiB.
  absl::StatusOr<std::string_view> Apply(std::string_view text, NormalizerScratch* scratch) const;

 private:
  std::vector<std::unique_ptr<NormalizerStep>> steps_;
};

}  // namespace gatehouse
