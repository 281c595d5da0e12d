#include "engine/tokenizer/bpe.h"

#include <gmock/gmock.h>

#include <map>
#include <random>

namespace gatehouse {
namespace {

using ::testing::ElementsAre;

// "t h", "h e", "th e": the vocabulary follows from the merges.
TokenizerSpec SpecOf(const std::vector<std::pair<std::string, std::string>>& merges) {
  TokenizerSpec spec;
  std::map<std::string, int32_t> ids;
  const auto id_of = [&](const std::string& text) {
    const auto [entry, is_new] = ids.emplace(text, static_cast<int32_t>(ids.size()));
    if (is_new) spec.model.vocab.emplace_back(*entry);
    return entry->second;
  };
  for (char c = 'a'; c <= 'z'; ++c) id_of(std::string(1, c));
  for (const auto& [left, right] : merges) {
    spec.model.merges.push_back({id_of(left), id_of(right), id_of(left + right)});
  }
  return spec;
}

class Encoder {
 public:
  explicit Encoder(TokenizerSpec spec)
      : spec_(std::move(spec)), vocabulary_(spec_), bpe_(spec_.model, vocabulary_) {}

  std::vector<std::string> Tokens(std::string_view word, bool allow_special = true) const {
    BpeScratch scratch;
    std::vector<int32_t> ids;
    bpe_.Encode(word, allow_special, &scratch, &ids);
    std::vector<std::string> tokens;
    for (const int32_t id : ids) tokens.emplace_back(vocabulary_.Bytes(id));
    return tokens;
  }

 private:
  TokenizerSpec spec_;
  Vocabulary vocabulary_;
  Bpe bpe_;
};

TEST(BpeTest, LowestRankFirstAndLeftmostOfEqualOnes) {
  const Encoder encoder(SpecOf({{"t", "h"}, {"h", "e"}, {"th", "e"}, {"a", "a"}}));
  EXPECT_THAT(encoder.Tokens("the"), ElementsAre("the"));
  EXPECT_THAT(encoder.Tokens("hehe"), ElementsAre("he", "he"));
  EXPECT_THAT(encoder.Tokens("aaa"), ElementsAre("aa", "a"));
}

TEST(BpeTest, TokenThatNoMergeMakesNeedsIgnoreMerges) {
  TokenizerSpec spec = SpecOf({{"a", "b"}});
  spec.model.vocab.emplace_back("abc", 100);
  EXPECT_THAT(Encoder(spec).Tokens("abc"), ElementsAre("ab", "c"));
  spec.model.ignore_merges = true;
  EXPECT_THAT(Encoder(spec).Tokens("abc"), ElementsAre("abc"));
  EXPECT_THAT(Encoder(spec).Tokens("abcc"), ElementsAre("ab", "c", "c"));
}

TEST(BpeTest, TextNeverJoinsToASpecialTokenUnlessAllowed) {
  TokenizerSpec spec = SpecOf({{"a", "b"}, {"ab", "c"}});
  const int32_t id = spec.model.merges[1].merged_id;
  spec.added_tokens.push_back({.id = id, .content = "abc", .special = true});
  for (const bool ignore_merges : {false, true}) {
    spec.model.ignore_merges = ignore_merges;
    const Encoder encoder(spec);
    EXPECT_THAT(encoder.Tokens("abc", true), ElementsAre("abc"));
    EXPECT_THAT(encoder.Tokens("abc", false), ElementsAre("ab", "c"));
    EXPECT_EQ(encoder.Tokens(std::string(90, 'x') + "abc", false).back(), "c");
  }
}

// The definition, read aloud: the whole word is searched for each merge.
std::vector<std::string> ByDefinition(
    std::string_view word, const std::vector<std::pair<std::string, std::string>>& merges) {
  std::vector<std::string> tokens;
  for (const char c : word) tokens.emplace_back(1, c);
  for (bool joined = true; joined;) {
    joined = false;
    for (size_t rank = 0; rank < merges.size() && !joined; ++rank) {
      for (size_t i = 0; i + 1 < tokens.size() && !joined; ++i) {
        if (tokens[i] != merges[rank].first || tokens[i + 1] != merges[rank].second) continue;
        tokens[i] += tokens[i + 1];
        tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        joined = true;
      }
    }
  }
  return tokens;
}

// Lengths on both sides of the border between the two ways of merging.
TEST(BpeTest, RandomWordsMergeAsByDefinition) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    std::mt19937 random(seed);
    std::vector<std::pair<std::string, std::string>> merges;
    std::vector<std::string> known = {"a", "b", "c"};
    while (merges.size() < 40) {
      const std::pair<std::string, std::string> merge = {known[random() % known.size()],
                                                         known[random() % known.size()]};
      if (std::find(merges.begin(), merges.end(), merge) != merges.end()) continue;
      merges.push_back(merge);
      known.push_back(merge.first + merge.second);
    }
    const Encoder encoder(SpecOf(merges));
    for (int i = 0; i < 40; ++i) {
      std::string word;
      const uint32_t length = random() % 90;
      while (word.size() < length) word.push_back("abc"[random() % 3]);
      ASSERT_EQ(encoder.Tokens(word), ByDefinition(word, merges)) << "seed " << seed << " " << word;
    }
  }
}

}  // namespace
}  // namespace gatehouse
