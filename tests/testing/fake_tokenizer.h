// A tokenizer of a given vocabulary: token i is the i-th piece of bytes, which need not be whole
// characters. Encode is one token a byte that is itself a piece. Immutable; any thread.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "engine/tokenizer/tokenizer.h"

namespace gatehouse {

class FakeTokenizer final : public Tokenizer {
 public:
  explicit FakeTokenizer(std::vector<std::string> pieces, std::set<int32_t> special_ids = {})
      : pieces_(std::move(pieces)), special_ids_(std::move(special_ids)) {}

  // Token i is "<i>".
  static std::vector<std::string> NumberedPieces(int32_t vocab_size) {
    std::vector<std::string> pieces;
    for (int32_t i = 0; i < vocab_size; ++i) pieces.push_back(absl::StrFormat("<%d>", i));
    return pieces;
  }

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              const EncodeOptions&) const override {
    std::vector<int32_t> ids;
    for (const char byte : text) {
      const std::optional<int32_t> id = TokenToId(std::string_view(&byte, 1));
      if (!id) return absl::InvalidArgumentError("a byte that is no piece");
      ids.push_back(*id);
    }
    return ids;
  }
  // The pieces one after the other; bytes that are no characters stay as they are.
  absl::StatusOr<std::string> Decode(const std::vector<int32_t>& ids,
                                     bool skip_special_tokens) const override {
    std::string text;
    for (const int32_t id : ids) {
      if (!skip_special_tokens || !IsSpecial(id)) text += TokenBytes(id);
    }
    return text;
  }
  std::string_view TokenBytes(int32_t id) const override {
    if (id < 0 || id >= vocab_size()) return {};
    return pieces_[id];
  }
  bool IsSpecial(int32_t id) const override { return special_ids_.count(id) > 0; }
  std::optional<int32_t> TokenToId(std::string_view token) const override {
    for (int32_t id = 0; id < vocab_size(); ++id) {
      if (pieces_[id] == token) return id;
    }
    return std::nullopt;
  }
  int32_t vocab_size() const override { return static_cast<int32_t>(pieces_.size()); }

 private:
  const std::vector<std::string> pieces_;
  const std::set<int32_t> special_ids_;
};

}  // namespace gatehouse
