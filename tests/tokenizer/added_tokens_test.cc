#include "engine/tokenizer/added_tokens.h"

#include <gmock/gmock.h>

#include <functional>

#include "kernels/base/utf8.h"
#include "tests/tokenizer/tokenizer_files.h"

namespace gatehouse {
namespace {

using ::testing::ElementsAre;

AddedTokens MakeAddedTokens(const std::vector<AddedTokenSpec>& tokens) {
  return AddedTokens::Make(tokens, Normalizer::Make({}).value()).value();
}

std::vector<std::string> Pieces(const std::vector<AddedTokenSpec>& tokens, std::string_view text,
                                bool parse_special = true) {
  const AddedTokens added_tokens = MakeAddedTokens(tokens);
  std::vector<TextPiece> pieces;
  added_tokens.SplitRaw(text, parse_special, {}, &pieces);
  std::vector<std::string> answers;
  for (const TextPiece& piece : pieces) {
    const std::string mark = piece.token_id < 0 ? "" : std::to_string(piece.token_id) + ":";
    answers.push_back(mark + std::string(piece.text));
  }
  return answers;
}

TEST(AddedTokensTest, LongestOfThoseThatStartFirstWins) {
  const std::vector<AddedTokenSpec> tokens = {
      {.id = 1, .content = "ab"}, {.id = 2, .content = "abcd"}, {.id = 3, .content = "bcdef"}};
  EXPECT_THAT(Pieces(tokens, "xabcdefabc"), ElementsAre("x", "2:abcd", "ef", "1:ab", "c"));
}

TEST(AddedTokensTest, StripsSpacesThatNoOtherTokenTook) {
  const std::vector<AddedTokenSpec> tokens = {{.id = 1, .content = "<l>", .lstrip = true},
                                              {.id = 2, .content = "<r>", .rstrip = true}};
  EXPECT_THAT(Pieces(tokens, "a \t<l> b"), ElementsAre("a", "1: \t<l>", " b"));
  EXPECT_THAT(Pieces(tokens, "a <r>\u3000b"), ElementsAre("a ", "2:<r>\u3000", "b"));
  EXPECT_THAT(Pieces(tokens, "<r>  <l>"), ElementsAre("2:<r>  ", "1:<l>"));
}

TEST(AddedTokensTest, PlainTextHidesWhatLiesInsideASpecialToken) {
  const std::vector<AddedTokenSpec> tokens = {{.id = 1, .content = "<s>x", .special = true},
                                              {.id = 2, .content = "x"}};
  EXPECT_THAT(Pieces(tokens, "x<s>x"), ElementsAre("2:x", "1:<s>x"));
  EXPECT_THAT(Pieces(tokens, "x<s>x", /*parse_special=*/false), ElementsAre("2:x", "<s>x"));
}

void ExpectRanges(const nlohmann::json& ranges, const std::function<bool(const std::string&)>& is) {
  std::vector<bool> expected(0x110000);
  for (const nlohmann::json& range : ranges) {
    for (uint32_t c = range[0]; c <= range[1].get<uint32_t>(); ++c) expected[c] = true;
  }
  int num_wrong = 0;
  for (uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    AppendUtf8(c, &text);
    if (is(text) != expected[c] && ++num_wrong <= 10) {
      ADD_FAILURE() << "U+" << std::hex << c << " is expected to be " << expected[c];
    }
  }
  EXPECT_EQ(num_wrong, 0);
}

TEST(AddedTokensTest, EveryNeighbourCountsAsItDoesInHuggingFace) {
  const nlohmann::json neighbours = ReadJsonFile(TokenizerTestPath("neighbours.json"));
  const AddedTokens added_tokens =
      MakeAddedTokens({{.id = 0, .content = "lone", .single_word = true},
                       {.id = 1, .content = "<strip>", .lstrip = true, .rstrip = true}});
  std::string text;
  std::vector<TextPiece> pieces;  // views of `text`
  const auto split = [&](const std::string& new_text) {
    text = new_text;
    pieces.clear();
    added_tokens.SplitRaw(text, true, {}, &pieces);
  };
  ExpectRanges(neighbours["word_before"], [&](const std::string& c) {
    split(c + "lone");
    return pieces.back().token_id != 0;
  });
  ExpectRanges(neighbours["word_after"], [&](const std::string& c) {
    split("lone" + c);
    return pieces.front().token_id != 0;
  });
  ExpectRanges(neighbours["space_before"], [&](const std::string& c) {
    split("x" + c + "<strip>");
    return pieces.front().text == "x";
  });
  ExpectRanges(neighbours["space_after"], [&](const std::string& c) {
    split("<strip>" + c + "x");
    return pieces.back().text == "x";
  });
}

}  // namespace
}  // namespace gatehouse
