// The added tokens of tokenizer.json: found in the text before anything else happens to it.
// Immutable, any thread.
//
// As in Hugging Face, in two passes: tokens with normalized = false are looked for in the text as
// it came, the others, normalized themselves, in the normalized rest. Of several that start at one
// place the longest wins. A special token that is not to be parsed hides what lies inside of it
// all the same (Hugging Face's encode_special_tokens).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/tokenizer_json.h"

namespace gatehouse {

// A stretch of text, or the added token found there.
struct TextPiece {
  std::string_view text;
  int32_t token_id = -1;  // -1: text
};

// Leftmost longest search of many strings: a trie with the children of each node in order.
class TokenTrie {
 public:
  TokenTrie() { first_bytes_.fill(false); }
  // Keeps the first value of a text that comes twice; an empty text is left out.
  explicit TokenTrie(const std::vector<std::pair<std::string, int32_t>>& text_to_value);
  // Finds the first match at or after text[*begin] and sets *begin and *end around it; -1: none.
  int32_t Find(std::string_view text, size_t* begin, size_t* end) const;

 private:
  struct Node {
    uint32_t first_edge = 0;
    uint32_t num_edges = 0;
    int32_t value = -1;
  };
  struct Edge {
    uint8_t byte;
    uint32_t node;
  };
  const Edge* FindEdge(const Node& node, uint8_t byte) const;

  std::vector<Node> nodes_;
  std::vector<Edge> edges_;
  std::array<bool, 256> first_bytes_;
};

class AddedTokens {
 public:
  // RESOURCE_EXHAUSTED from the normalizer.
  static absl::StatusOr<AddedTokens> Make(std::vector<AddedTokenSpec> specs,
                                          const Normalizer& normalizer);
  // Appends the pieces of `text`, in order; pieces of text are never empty. `text` must be UTF-8.
  // With parse_special, `plain_ranges` of it are without special tokens all the same.
  void SplitRaw(std::string_view text, bool parse_special, std::span<const ByteRange> plain_ranges,
                std::vector<TextPiece>* pieces) const {
    Split(raw_, text, parse_special, plain_ranges, pieces);
  }
  void SplitNormalized(std::string_view text, bool parse_special,
                       std::span<const ByteRange> plain_ranges,
                       std::vector<TextPiece>* pieces) const {
    Split(normalized_, text, parse_special, plain_ranges, pieces);
  }

 private:
  AddedTokens() = default;
  void Split(const TokenTrie& trie, std::string_view text, bool parse_special,
             std::span<const ByteRange> plain_ranges, std::vector<TextPiece>* pieces) const;

  std::vector<AddedTokenSpec> tokens_;
  TokenTrie raw_;         // values are indices of tokens_
  TokenTrie normalized_;  // the same
};

}  // namespace gatehouse
