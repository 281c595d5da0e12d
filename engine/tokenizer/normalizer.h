// The normalizer steps of tokenizer.json. Immutable, any thread.
//
// NFC here is the NFC of Hugging Face `tokenizers`, whose tables are those of Unicode 9: the marks
// that came later have no combining class in it, and U+11938 is not composed. utf8proc knows
// Unicode 15; the newer code points are passed through as what they are to Hugging Face. The ids a
// model was trained with matter more than the newest standard.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/tokenizer_json.h"

namespace gatehouse {

class Normalizer {
 public:
  explicit Normalizer(std::vector<NormalForm> steps) : steps_(std::move(steps)) {}
  // `text` must be UTF-8. The answer is a view of `text` when nothing changes, else of *storage.
  std::string_view Apply(std::string_view text, std::string* storage) const;

 private:
  std::vector<NormalForm> steps_;
};

}  // namespace gatehouse
