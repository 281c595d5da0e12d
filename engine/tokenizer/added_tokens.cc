#include "engine/tokenizer/added_tokens.h"

#include <algorithm>

#include "engine/tokenizer/unicode.h"
#include "kernels/base/status_macros.h"
#include "kernels/base/utf8.h"

namespace gatehouse {
namespace {

bool IsSingleWord(std::string_view text, size_t begin, size_t end) {
  if (begin > 0 && IsWord(PreviousCodePoint(text, begin))) return false;
  return end == text.size() || !IsWord(NextCodePoint(text, &end));
}

size_t SkipSpacesBefore(std::string_view text, size_t begin, size_t limit) {
  while (begin > limit && IsSpace(PreviousCodePoint(text, begin))) {
    do {
      --begin;
    } while ((static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80);
  }
  return begin;
}

size_t SkipSpacesAfter(std::string_view text, size_t end) {
  for (size_t next = end; end < text.size(); end = next) {
    if (!IsSpace(NextCodePoint(text, &next))) break;
  }
  return end;
}

}  // namespace

TokenTrie::TokenTrie(const std::vector<std::pair<std::string, int32_t>>& text_to_value) {
  first_bytes_.fill(false);
  std::vector<std::pair<std::string_view, int32_t>> sorted;
  for (const auto& [text, value] : text_to_value) {
    if (!text.empty()) sorted.emplace_back(text, value);
  }
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  // Breadth first: a node's texts are a range of `sorted` that share their first `depth` bytes.
  struct Range {
    size_t begin;
    size_t end;
    size_t depth;
  };
  std::vector<Range> ranges = {{0, sorted.size(), 0}};
  nodes_.resize(1);
  for (size_t node = 0; node < nodes_.size(); ++node) {
    auto [begin, end, depth] = ranges[node];
    if (begin < end && sorted[begin].first.size() == depth) {
      nodes_[node].value = sorted[begin].second;
      while (begin < end && sorted[begin].first.size() == depth) ++begin;  // the same text again
    }
    nodes_[node].first_edge = static_cast<uint32_t>(edges_.size());
    while (begin < end) {
      const auto byte = static_cast<uint8_t>(sorted[begin].first[depth]);
      size_t next = begin;
      while (next < end && static_cast<uint8_t>(sorted[next].first[depth]) == byte) ++next;
      edges_.push_back({byte, static_cast<uint32_t>(nodes_.size())});
      nodes_.emplace_back();
      ranges.push_back({begin, next, depth + 1});
      if (depth == 0) first_bytes_[byte] = true;
      begin = next;
    }
    nodes_[node].num_edges = static_cast<uint32_t>(edges_.size()) - nodes_[node].first_edge;
  }
}

const TokenTrie::Edge* TokenTrie::FindEdge(const Node& node, uint8_t byte) const {
  const Edge* const begin = edges_.data() + node.first_edge;
  const Edge* const end = begin + node.num_edges;
  const Edge* const edge = std::lower_bound(
      begin, end, byte, [](const Edge& each, uint8_t value) { return each.byte < value; });
  return edge != end && edge->byte == byte ? edge : nullptr;
}

int32_t TokenTrie::Find(std::string_view text, size_t* begin, size_t* end) const {
  for (; *begin < text.size(); ++*begin) {
    if (!first_bytes_[static_cast<uint8_t>(text[*begin])]) continue;
    int32_t value = -1;
    const Node* node = &nodes_[0];
    for (size_t at = *begin; at < text.size(); ++at) {
      const Edge* edge = FindEdge(*node, static_cast<uint8_t>(text[at]));
      if (edge == nullptr) break;
      node = &nodes_[edge->node];
      if (node->value < 0) continue;
      value = node->value;
      *end = at + 1;
    }
    if (value >= 0) return value;
  }
  return -1;
}

absl::StatusOr<AddedTokens> AddedTokens::Make(std::vector<AddedTokenSpec> specs,
                                              const Normalizer& normalizer) {
  AddedTokens added;
  added.tokens_ = std::move(specs);
  std::vector<std::pair<std::string, int32_t>> raw;
  std::vector<std::pair<std::string, int32_t>> normalized;
  NormalizerScratch scratch;
  // Special ones first: two texts can become the same by normalizing, and the first one counts.
  for (const bool special : {true, false}) {
    for (size_t i = 0; i < added.tokens_.size(); ++i) {
      const AddedTokenSpec& token = added.tokens_[i];
      if (token.special != special) continue;
      std::string_view content = token.content;
      if (token.normalized) {
        GATEHOUSE_ASSIGN_OR_RETURN(content, normalizer.Apply(content, &scratch));
      }
      (token.normalized ? normalized : raw).emplace_back(content, static_cast<int32_t>(i));
    }
  }
  added.raw_ = TokenTrie(raw);
  added.normalized_ = TokenTrie(normalized);
  return added;
}

void AddedTokens::Split(const TokenTrie& trie, std::string_view text, bool parse_special,
                        std::span<const ByteRange> plain_ranges,
                        std::vector<TextPiece>* pieces) const {
  size_t done = 0;  // what lies before is in `pieces`
  size_t begin = 0;
  size_t end = 0;
  auto plain = plain_ranges.begin();
  for (int32_t index = trie.Find(text, &begin, &end); index >= 0;
       begin = end, index = trie.Find(text, &begin, &end)) {
    const AddedTokenSpec& token = tokens_[index];
    while (plain != plain_ranges.end() && plain->end <= begin) ++plain;
    const bool is_plain = plain != plain_ranges.end() && plain->begin < end;
    if (token.special && (!parse_special || is_plain)) {
      // What is partly plain must not hide a token that follows in the other part.
      if (is_plain && (begin < plain->begin || end > plain->end)) end = begin + 1;
      continue;
    }
    if (token.single_word && !IsSingleWord(text, begin, end)) continue;
    // The search goes on behind the token itself, not behind the spaces it took: a second token
    // may begin with these spaces, and takes what is left of them.
    const size_t from = token.lstrip ? SkipSpacesBefore(text, begin, done) : begin;
    if (done < from) pieces->push_back({text.substr(done, from - done), -1});
    done = token.rstrip ? SkipSpacesAfter(text, end) : end;
    pieces->push_back({text.substr(from, done - from), token.id});
  }
  if (done < text.size()) pieces->push_back({text.substr(done), -1});
}

}  // namespace gatehouse
