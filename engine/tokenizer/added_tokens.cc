#include "engine/tokenizer/added_tokens.h"

#include <utf8proc.h>

#include <algorithm>

#include "engine/tokenizer/unicode_additions.h"
#include "kernels/base/utf8.h"

namespace gatehouse {
namespace {

bool IsBetween(char32_t c, char32_t first, char32_t last) { return c >= first && c <= last; }

// The property White_Space.
bool IsSpace(char32_t c) {
  return IsBetween(c, 0x9, 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         IsBetween(c, 0x2000, 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool IsNewerWord(char32_t c) {
  return std::any_of(std::begin(kUnicodeAdditions), std::end(kUnicodeAdditions),
                     [c](const UnicodeAddition& addition) {
                       const std::string_view property = addition.property;
                       const bool is_word = property == "Lu" || property == "Ll" ||
                                            property == "Lt" || property == "Lm" ||
                                            property == "Lo" || property[0] == 'M' ||
                                            property == "Nd" || property == "Pc";
                       return is_word && IsBetween(c, addition.first, addition.last);
                     });
}

// \w of Rust's regex: Alphabetic, M, Nd, Pc, Join_Control. What is Alphabetic beyond letters, marks
// and Nl are the circled and squared Latin letters. Only asked about neighbours of added tokens.
bool IsWord(char32_t c) {
  if (c == 0x200C || c == 0x200D || IsBetween(c, 0x24B6, 0x24E9) ||
      IsBetween(c, 0x1F130, 0x1F149) || IsBetween(c, 0x1F150, 0x1F169) ||
      IsBetween(c, 0x1F170, 0x1F189)) {
    return true;
  }
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    case UTF8PROC_CATEGORY_CN:
      return IsNewerWord(c);
    default:
      return false;
  }
}

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

AddedTokens::AddedTokens(std::vector<AddedTokenSpec> tokens, const Normalizer& normalizer)
    : tokens_(std::move(tokens)) {
  std::vector<std::pair<std::string, int32_t>> raw;
  std::vector<std::pair<std::string, int32_t>> normalized;
  // Special ones first: two texts can become the same by normalizing, and the first one counts.
  for (const bool special : {true, false}) {
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (tokens_[i].special != special) continue;
      std::string storage;
      const std::string_view content = tokens_[i].normalized
                                           ? normalizer.Apply(tokens_[i].content, &storage)
                                           : std::string_view(tokens_[i].content);
      (tokens_[i].normalized ? normalized : raw).emplace_back(content, static_cast<int32_t>(i));
    }
  }
  raw_ = TokenTrie(raw);
  normalized_ = TokenTrie(normalized);
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
