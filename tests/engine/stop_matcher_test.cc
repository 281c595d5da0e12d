#include "engine/stop_matcher.h"

#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace gatehouse {
namespace {

TEST(StopMatcherTest, PassesTextWithoutStopStringsThrough) {
  StopMatcher matcher({}, false);
  EXPECT_EQ(matcher.Append("hello", true), "hello");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, KeepsBackWhatMayBecomeAStopString) {
  StopMatcher matcher({"\n\n"}, false);
  EXPECT_EQ(matcher.Append("one\n", true), "one");
  EXPECT_EQ(matcher.Append("two\n", true), "\ntwo");
  EXPECT_EQ(matcher.Append("\nxyz", true), "");
  EXPECT_EQ(matcher.matched(), "\n\n");
}

TEST(StopMatcherTest, GivesBackWhatItKeptWhenTheTextEnds) {
  StopMatcher matcher({"END"}, false);
  EXPECT_EQ(matcher.Append("the EN", true), "the ");
  EXPECT_EQ(matcher.Flush(), "EN");
  EXPECT_EQ(matcher.matched(), std::nullopt);
}

TEST(StopMatcherTest, IncludesTheStopStringButNothingBehindIt) {
  StopMatcher matcher({"END"}, true);
  EXPECT_EQ(matcher.Append("the E", true), "the ");
  EXPECT_EQ(matcher.Append("ND.", true), "END");
  EXPECT_EQ(matcher.matched(), "END");
}

TEST(StopMatcherTest, FindsAMatchThatBeginsInsideAFailedOne) {
  StopMatcher matcher({"aab"}, false);
  EXPECT_EQ(matcher.Append("aa", true), "");
  EXPECT_EQ(matcher.Append("a", true), "a");
  EXPECT_EQ(matcher.Append("b", true), "");
  EXPECT_EQ(matcher.matched(), "aab");
}

TEST(StopMatcherTest, TakesTheMatchThatEndsFirstAndOfThoseTheLongest) {
  StopMatcher matcher({"cd", "bcd", "abcde"}, false);
  EXPECT_EQ(matcher.Append("xabcdef", true), "xa");
  EXPECT_EQ(matcher.matched(), "bcd");
}

TEST(StopMatcherTest, IgnoresMatchesThatEndTooEarlyButNotThoseThatBeginThere) {
  StopMatcher matcher({"ab"}, false);
  EXPECT_EQ(matcher.Append("ab", false), "ab");
  EXPECT_EQ(matcher.Append("xa", false), "x");
  EXPECT_EQ(matcher.Append("b", true), "");
  EXPECT_EQ(matcher.matched(), "ab");
}

TEST(StopMatcherTest, HoldsAnEarlyMatchBackOnlyAsTheBeginningOfAnother) {
  // "ab" ended before it might stop; it stays inside, as the beginning of "abc", and may not match
  // when the next piece comes.
  StopMatcher matcher({"ab", "abc"}, false);
  EXPECT_EQ(matcher.Append("ab", false), "");
  EXPECT_EQ(matcher.Append("d", true), "abd");
  EXPECT_EQ(matcher.matched(), std::nullopt);
}

// The text up to the first character after which some stop string is complete: the oracle.
struct Expected {
  std::string text;
  std::optional<std::string> matched;
};
Expected Search(const std::string& text, const std::vector<std::string>& strings, bool include) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::optional<std::string> longest;
    for (const std::string& stop : strings) {
      const bool ends_here =
          stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0;
      if (ends_here && (!longest || stop.size() > longest->size())) longest = stop;
    }
    if (longest) return {text.substr(0, include ? end : end - longest->size()), longest};
  }
  return {text, std::nullopt};
}

TEST(StopMatcherTest, TheOutcomeDoesNotDependOnHowTheTextIsCut) {
  constexpr int kSeed = 11;
  std::mt19937 random(kSeed);
  const auto random_text = [&](size_t most) {
    std::string text(1 + random() % most, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  int num_matches = 0;
  for (int round = 0; round < 20000; ++round) {
    const std::string text = random_text(24);
    std::vector<std::string> strings(1 + random() % 3);
    for (std::string& stop : strings) stop = random_text(6);
    const bool include = random() % 2 == 0;
    StopMatcher matcher(strings, include);
    std::string sent;
    for (size_t begin = 0; begin < text.size() && !matcher.matched();) {
      const size_t count = std::min<size_t>(random() % 5, text.size() - begin);
      sent += matcher.Append(std::string_view(text).substr(begin, count), true);
      begin += count;
    }
    sent += matcher.Flush();
    const Expected expected = Search(text, strings, include);
    ASSERT_EQ(sent, expected.text) << text << " round " << round << " seed " << kSeed;
    ASSERT_EQ(matcher.matched(), expected.matched) << text << " round " << round;
    num_matches += expected.matched.has_value();
  }
  EXPECT_GT(num_matches, 1000);
}

}  // namespace
}  // namespace gatehouse
