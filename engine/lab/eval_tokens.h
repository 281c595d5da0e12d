// What is evaluated: windows of token ids, each with the token after it, which is predicted and not
// read.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/tokenizer.h"

namespace gatehouse {

struct EvalTokens {
  int32_t window = 0;
  std::vector<int32_t> ids;  // [num_windows, window + 1]

  int64_t num_windows() const { return static_cast<int64_t>(ids.size()) / (window + 1); }
  std::span<const int32_t> inputs(int64_t w) const {
    return std::span(ids).subspan(w * (window + 1), window);
  }
  std::span<const int32_t> targets(int64_t w) const {
    return std::span(ids).subspan(w * (window + 1) + 1, window);
  }
};

// `file` holds 16-bit little-endian ids, window + 1 for each window. INVALID_ARGUMENT names the
// file and what is wrong: its length, or the byte offset of an id that the model has not.
absl::StatusOr<EvalTokens> ReadTokenFile(const std::string& file, int32_t window,
                                         int32_t vocab_size);
// Windows of a text one after the other; what is left behind the last whole one is not read.
absl::StatusOr<EvalTokens> ReadTextTokens(const std::string& file, int32_t window,
                                          const Tokenizer& tokenizer);

}  // namespace gatehouse
