#include "kernels/base/utf8.h"

#include <gtest/gtest.h>

#include <tuple>

namespace gatehouse {
namespace {

// Input, text, bytes left: the answers of Rust's from_utf8_lossy, its "left" bytes being one more
// U+FFFD there.
using LossyCase = std::tuple<std::string, std::string, size_t>;

class AppendUtf8LossyTest : public ::testing::TestWithParam<LossyCase> {};

TEST_P(AppendUtf8LossyTest, ReplacesEachMaximalBadPartOnce) {
  const auto& [bytes, expected, expected_left] = GetParam();
  std::string text;
  EXPECT_EQ(AppendUtf8Lossy(bytes, &text), expected_left);
  EXPECT_EQ(text, expected);
}

#define R "\xEF\xBF\xBD"
INSTANTIATE_TEST_SUITE_P(
    All, AppendUtf8LossyTest,
    ::testing::Values(LossyCase{"", "", 0},
                      LossyCase{"plain ascii, longer than eight bytes",
                                "plain ascii, longer than eight bytes", 0},
                      LossyCase{"\x80", R, 0}, LossyCase{"a\xFFz", "a" R "z", 0},
                      LossyCase{"\xC3\xA9", "\xC3\xA9", 0}, LossyCase{"\xC3", "", 1},
                      LossyCase{"\xC0\xAF", R R, 0},     // overlong slash
                      LossyCase{"\xE2\x82(", R "(", 0},  // cut euro
                      LossyCase{"\xE2\x82\xAC", "\xE2\x82\xAC", 0},
                      LossyCase{"\xE0\x9F\xBF", R R R, 0},  // overlong
                      LossyCase{"\xED\xA0\x80", R R R, 0},  // surrogate
                      LossyCase{"\xED\x9F\xBF", "\xED\x9F\xBF", 0},
                      LossyCase{"\xF0\x9F\x98", "", 3}, LossyCase{"\xF0\x9F\x98x", R "x", 0},
                      LossyCase{"\xF0\x8F\xBF\xBF", R R R R, 0},  // overlong
                      LossyCase{"\xF4\x90\x80\x80", R R R R, 0},  // above U+10FFFF
                      LossyCase{"\xF5\x80", R R, 0},
                      LossyCase{"\xE2\xE2\x82\xAC", R "\xE2\x82\xAC", 0},
                      LossyCase{"12345678\x80"
                                "12345678",
                                "12345678" R "12345678", 0}));
#undef R

TEST(FindInvalidUtf8Test, GivesTheOffsetOfTheFirstBadCharacter) {
  EXPECT_EQ(FindInvalidUtf8(""), 0u);
  EXPECT_EQ(FindInvalidUtf8("abc"), 3u);
  EXPECT_EQ(FindInvalidUtf8("ab\xC3\xA9"), 4u);
  EXPECT_EQ(FindInvalidUtf8("ab\xC3"), 2u);
  EXPECT_EQ(FindInvalidUtf8("0123456789\xED\xA0\x80"), 10u);
  EXPECT_EQ(FindInvalidUtf8(std::string_view("a\0\xFF", 3)), 2u);
}

TEST(CodePointTest, EveryScalarComesBackForwardAndBackward) {
  for (char32_t code_point = 0; code_point < 0x110000; ++code_point) {
    if (code_point >= 0xD800 && code_point < 0xE000) continue;
    std::string text = "a";
    AppendUtf8(code_point, &text);
    ASSERT_EQ(FindInvalidUtf8(text), text.size()) << std::hex << static_cast<uint32_t>(code_point);
    ASSERT_EQ(PreviousCodePoint(text, text.size()), code_point);
    size_t offset = 1;
    ASSERT_EQ(NextCodePoint(text, &offset), code_point);
    ASSERT_EQ(offset, text.size());
  }
}

}  // namespace
}  // namespace gatehouse
