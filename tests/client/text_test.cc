#include "client/text.h"

#include <gtest/gtest.h>

namespace gatehouse {
namespace {

TEST(FirstInvalidUtf8Test, AcceptsEveryLengthOfCharacter) {
  EXPECT_EQ(FirstInvalidUtf8(""), std::nullopt);
  EXPECT_EQ(FirstInvalidUtf8("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z"), std::nullopt);
  EXPECT_EQ(FirstInvalidUtf8("\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF"), std::nullopt);
}

TEST(FirstInvalidUtf8Test, NamesTheByteOfEachKindOfFault) {
  EXPECT_EQ(FirstInvalidUtf8("ab\x80"), 2u);            // continuation without a lead
  EXPECT_EQ(FirstInvalidUtf8("ab\xC3"), 2u);            // cut off
  EXPECT_EQ(FirstInvalidUtf8("\xC0\xAF"), 0u);          // overlong
  EXPECT_EQ(FirstInvalidUtf8("\xE0\x9F\xBF"), 0u);      // overlong
  EXPECT_EQ(FirstInvalidUtf8("a\xED\xA0\x80"), 1u);     // surrogate
  EXPECT_EQ(FirstInvalidUtf8("\xF4\x90\x80\x80"), 0u);  // above U+10FFFF
  EXPECT_EQ(FirstInvalidUtf8("\xF0\x9F\x98x"), 0u);     // third continuation missing
  EXPECT_EQ(FirstInvalidUtf8(std::string("\xFF", 1)), 0u);
}

TEST(TerminalSafeTest, ShowsControlCharactersAndKeepsText) {
  EXPECT_EQ(TerminalSafe("caf\xC3\xA9\n\ttea"), "caf\xC3\xA9\n\ttea");
  EXPECT_EQ(TerminalSafe("\x1b[31mred\x07\x7f\r"), "\\x1b[31mred\\x07\\x7f\\x0d");
  EXPECT_EQ(TerminalSafe("a\xC2\x9B"
                         "b\xC2\xA0"),
            "a\\u009bb\xC2\xA0");  // C1, but not U+00A0
}

TEST(NearestWordTest, FindsSwapsAndMissingLettersButNotStrangers) {
  const std::vector<std::string> flags = {"--temperature", "--top-k", "--top-p", "--seed"};
  EXPECT_EQ(NearestWord("--temprature", flags), "--temperature");
  EXPECT_EQ(NearestWord("--tpo-k", flags), "--top-k");
  EXPECT_EQ(NearestWord("--xyzzy-plugh", flags), "");
  EXPECT_EQ(NearestWord(std::string(1000, 'x'), flags), "");
}

}  // namespace
}  // namespace gatehouse
