#include "engine/tokenizer/regex.h"

#include <gmock/gmock.h>

#include "kernels/base/utf8.h"
#include "tests/tokenizer/tokenizer_files.h"

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Matches(const std::string& pattern, const std::string& text) {
  const absl::StatusOr<Regex> regex = Regex::Compile(pattern);
  EXPECT_TRUE(regex.ok()) << pattern << ": " << regex.status();
  if (!regex.ok()) return {};
  RegexScratch scratch;
  std::vector<RegexMatch> matches;
  EXPECT_TRUE(regex->FindAll(text, &scratch, &matches).ok()) << pattern;
  std::vector<std::string> found;
  for (const RegexMatch& match : matches) {
    found.push_back(text.substr(match.begin, match.end - match.begin));
  }
  return found;
}

// categories.json is what Oniguruma (Unicode 16) says inside of Hugging Face's tokenizers.
TEST(RegexTest, EveryCodePointHasTheCategoryThatHuggingFaceSees) {
  std::string text;
  std::vector<std::string> category_of(0x110000);
  for (const nlohmann::json& row : ReadJsonFile(TokenizerTestPath("categories.json"))) {
    for (uint32_t c = row[0]; c <= row[1].get<uint32_t>(); ++c) category_of[c] = row[2];
  }
  std::vector<uint32_t> offset_to_code_point;
  for (uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    AppendUtf8(c, &text);
    offset_to_code_point.resize(text.size(), c);
  }
  RegexScratch scratch;
  for (const std::string name :
       {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M", "Mc", "Me", "N",  "Nd", "Nl", "No", "P",  "Pc",
        "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S", "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp"}) {
    std::vector<bool> is_member(0x110000);
    for (const std::string& pattern : {"\\p{" + name + "}", "[\\p{" + name + "}]"}) {
      const absl::StatusOr<Regex> regex = Regex::Compile(pattern);
      ASSERT_TRUE(regex.ok()) << regex.status();
      std::vector<RegexMatch> matches;
      ASSERT_TRUE(regex->FindAll(text, &scratch, &matches).ok());
      is_member.assign(0x110000, false);
      for (const RegexMatch& match : matches) is_member[offset_to_code_point[match.begin]] = true;
      int num_wrong = 0;
      for (uint32_t c = 0; c < 0x110000; ++c) {
        const bool expected = category_of[c].substr(0, name.size()) == name;
        if (is_member[c] == expected || ++num_wrong > 5) continue;
        ADD_FAILURE() << pattern << " and U+" << std::hex << c << ", which is " << category_of[c];
      }
      EXPECT_EQ(num_wrong, 0) << pattern;
    }
  }
}

TEST(RegexTest, SpaceIsWhiteSpaceAndNotTheMongolianSeparator) {
  EXPECT_THAT(Matches(R"(\s)", "a\u0085b\u00A0c\u180Ed\u200Be\u3000f"),
              ElementsAre("\u0085", "\u00A0", "\u3000"));
  EXPECT_THAT(Matches(R"([^\s]+)", "ab \u180E\tc"), ElementsAre("ab", "\u180E", "c"));
  EXPECT_THAT(Matches(R"(\S+)", "ab \u180E\tc"), ElementsAre("ab", "\u180E", "c"));
}

TEST(RegexTest, ReadsRubysLettersAndNotPerls) {
  EXPECT_THAT(Matches(R"(\h+)", "xBEEF z"), ElementsAre("BEEF"));
  EXPECT_THAT(Matches(R"(\v)", "a\nb\vc"), ElementsAre("\v"));
  EXPECT_THAT(Matches("a{,2}b", "aaab b"), ElementsAre("aab", "b"));
  EXPECT_THAT(Matches("^.$", "a\nb\ncc"), ElementsAre("a", "b"));
  EXPECT_THAT(Matches(R"(\u00e9|\x{1F600})", "e\u00E9\U0001F600"),
              ElementsAre("\u00E9", "\U0001F600"));
}

TEST(RegexTest, CaselessGroupTakesTheLongS) {
  EXPECT_THAT(Matches("(?i:'s|'t)", "'S 't '\u017F"), ElementsAre("'S", "'t", "'\u017F"));
}

TEST(RegexTest, EmptyMatchIsNotTakenBehindAnother) {
  EXPECT_THAT(Matches("x*", "axxb"), ElementsAre("", "xx", ""));
  EXPECT_THAT(Matches("", ""), ElementsAre(""));
}

class RefusedRegexTest : public ::testing::TestWithParam<const char*> {};

TEST_P(RefusedRegexTest, IsAnInvalidArgumentInOneLine) {
  const absl::StatusOr<Regex> regex = Regex::Compile(GetParam());
  ASSERT_FALSE(regex.ok());
  EXPECT_EQ(regex.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(regex.status().message()), HasSubstr("the regular expression"));
  EXPECT_EQ(regex.status().message().find('\n'), std::string::npos);
}

// Each means something else in PCRE2, or nothing.
INSTANTIATE_TEST_SUITE_P(
    All, RefusedRegexTest,
    ::testing::Values("(", ")", "a)", "(?:a", "[", "[a", "[]", "[^]", "[a[b]]", "[[:alpha:]]",
                      "[a&&b]", "\\", "\\b", "\\B", "\\G", "\\K", "\\R", "\\X", "\\Z", "\\1",
                      "\\k<a>", "\\g<a>", "\\Q", "\\p{Foo}", "\\p{", "\\pL", "\\p{C}", "\\p{Cn}",
                      "[\\P{L}]", "[\\W]", "[\\D]", "(?m:a)", "(?x)a", "a(?i)b", "(?#a)", "(*FAIL)",
                      "(?<name>a)", "(?P<n>a)", "a{1,2}+", "a{2}?", "a{2,1}", "a{x}", "{", "}", "]",
                      "a**", "*", "\\x", "\\xff", "\\x{110000}", "\\x{d800}", "\\u12", "(?i:ss)",
                      "(?i:\u00DF)", "(?i:[\u00E0])", "(?i:\\x{e9})", "(?<=a+)b", "\n\xC3\xA9(",
                      "[\\A]", "[z-a]"));

// Nested repeats of one letter: exponential. The search gives up instead of holding the thread.
TEST(RegexTest, HopelessSearchIsResourceExhausted) {
  const absl::StatusOr<Regex> regex = Regex::Compile("(?:a|aa)+b");
  ASSERT_TRUE(regex.ok()) << regex.status();
  RegexScratch scratch;
  std::vector<RegexMatch> matches;
  const absl::Status status = regex->FindAll(std::string(200, 'a') + "cb", &scratch, &matches);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

}  // namespace
}  // namespace gatehouse
