#include "engine/lab/eval_tokens.h"

#include <fstream>
#include <sstream>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

absl::StatusOr<std::string> ReadWhole(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream bytes;
  if (!stream || !(bytes << stream.rdbuf())) {
    return absl::NotFoundError(file + ": cannot be read, or is empty");
  }
  return bytes.str();
}

}  // namespace

absl::StatusOr<EvalTokens> ReadTokenFile(const std::string& file, int32_t window,
                                         int32_t vocab_size) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::string bytes, ReadWhole(file));
  const size_t record = 2 * (static_cast<size_t>(window) + 1);
  if (bytes.size() % record != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: got %d bytes, expected a multiple of %d: windows of %d 16-bit ids",
                        file, bytes.size(), record, window + 1));
  }
  EvalTokens tokens{.window = window};
  for (size_t i = 0; i < bytes.size(); i += 2) {
    const int32_t id = static_cast<uint8_t>(bytes[i]) | static_cast<uint8_t>(bytes[i + 1]) << 8;
    if (id >= vocab_size) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "%s: byte %d: got id %d, expected one below %d", file, i, id, vocab_size));
    }
    tokens.ids.push_back(id);
  }
  return tokens;
}

absl::StatusOr<EvalTokens> ReadTextTokens(const std::string& file, int32_t window,
                                          const Tokenizer& tokenizer) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::string text, ReadWhole(file));
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                             tokenizer.Encode(text, {.add_special_tokens = false}));
  EvalTokens tokens{.window = window};
  for (size_t first = 0; first + window < ids.size(); first += window) {
    tokens.ids.insert(tokens.ids.end(), ids.begin() + static_cast<int64_t>(first),
                      ids.begin() + static_cast<int64_t>(first + window + 1));
  }
  if (!tokens.ids.empty()) return tokens;
  return absl::InvalidArgumentError(absl::StrFormat(
      "%s: got %d tokens, expected more than a window of %d", file, ids.size(), window));
}

}  // namespace gatehouse
