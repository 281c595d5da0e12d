#include "server/trace_context.h"

#include <gtest/gtest.h>

namespace gatehouse {
namespace {

// The example of the W3C recommendation.
const std::string kTrace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

std::string With(size_t position, char c) {
  std::string text = kTrace;
  text[position] = c;
  return text;
}

TEST(ReadTraceparentTest, TakesWhatTheRecommendationCallsValid) {
  EXPECT_EQ(ReadTraceparent(kTrace), kTrace);
  EXPECT_EQ(ReadTraceparent("01" + kTrace.substr(2) + "-later-fields"), "01" + kTrace.substr(2));
}

TEST(ReadTraceparentTest, RefusesEverythingElse) {
  for (const std::string& text :
       {std::string(), kTrace.substr(1), kTrace + "0", kTrace + "-1", With(0, 'A'), With(2, '0'),
        With(5, '-'), With(5, 'g'), With(5, '\n'), "ff" + kTrace.substr(2),
        "01" + kTrace.substr(2) + "later",
        std::string("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
        std::string("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01")}) {
    EXPECT_EQ(ReadTraceparent(text), "") << text;
  }
}

}  // namespace
}  // namespace gatehouse
