#include "engine/lab/route_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/lab/route_case.h"

namespace gatehouse {
namespace {

std::string ErrorOf(const std::string& text) {
  return std::string(ParseRouteFile(text, "f.route").status().message());
}

TEST(ParseRouteFileTest, NamesTheLineOfTheFirstFault) {
  const struct {
    const char* text;
    const char* error;
  } faults[] = {
      {"experts 2\nexperst 2", "f.route:2: there is no setting 'experst'"},
      {"experts", "f.route:1: experts has no value"},
      {"case", "f.route:1: expected: case NAME [like NAME]"},
      {"case a like b", "f.route:1: like b: no case of that name above"},
      {"case a\ncase a", "f.route:2: case a stands here twice"},
      {"experts 2\ncase a", "f.route:2: a case after lines that belong to none"},
      {"token 1 .5 .5", "f.route:1: token: got '1', expected 0"},
      {"token 0 .5 x", "f.route:1: got 'x', expected a number in fp32"},
      {"token 0 1e39", "f.route:1: got '1e39', expected a number in fp32"},
      {"token 0", "f.route:1: expected numbers"},
      {"token 0 1 / hoem 1", "f.route:1: there is no attribute 'hoem'"},
      {"gate_row", "f.route:1: expected numbers"},
      {"# comment\nexpect e0", "f.route:2: expect: expected LABEL: items"},
  };
  for (const auto& fault : faults) EXPECT_EQ(ErrorOf(fault.text), fault.error) << fault.text;
}

TEST(ParseRouteFileTest, TakesOverAllButTheExpectations) {
  const auto cases = ParseRouteFile(
      "case a\nexperts 2 top_k 1\ntoken 0 .5 .5\nexpect e0: 0\n"
      "case b like a   # and one more\ntop_k 2\ntoken 1 .1 .9 / home 1",
      "f.route");
  ASSERT_TRUE(cases.ok()) << cases.status();
  ASSERT_EQ(cases->size(), 2u);
  const RouteCase& b = (*cases)[1];
  EXPECT_EQ(b.settings.at("experts").text, "2");
  EXPECT_EQ(b.settings.at("top_k").text, "2");
  EXPECT_EQ(b.tokens.size(), 2u);
  EXPECT_EQ(b.tokens[1].attributes.at("home").line, 7);
  EXPECT_TRUE(b.expectations.empty());
}

absl::StatusOr<RouteOutcome> Decide(const std::string& text) {
  const auto cases = ParseRouteFile(text, "f.route");
  EXPECT_TRUE(cases.ok()) << cases.status();
  return DecideRouteCase(cases->front());
}

// A word that no setting takes is the file's fault, which no case can expect; settings that
// contradict each other are the case's.
TEST(DecideRouteCaseTest, TellsAFaultOfTheFileFromAnInvalidCase) {
  const std::string token = "\ntoken 0 .6 .4";
  for (const char* settings :
       {"experts 2 top_k 1 order best", "experts x top_k 1", "experts 2 top_k 1 place 0,7",
        "experts 2 top_k 1 tile 1.5", "experts 2 top_k 1 throughput 1,2", "experts -1 top_k 1"}) {
    EXPECT_TRUE(absl::IsOutOfRange(Decide(settings + token).status())) << settings;
  }
  for (const char* settings :
       {"top_k 1", "experts 2 top_k 3", "experts 3 top_k 1", "experts 2 top_k 1 gamma 0",
        "experts 2 top_k 1 gamma -1", "experts 2 top_k 1 capacity -1", "experts 2 top_k 1 tau 2",
        "experts 2 top_k 1 d_eff 9", "experts 2 top_k 1 mode threshold",
        "experts 2 top_k 1 mode block", "experts 2 top_k 1 rows -3", "experts 2 top_k 1 r_max .5",
        "experts 2 top_k 1 ranks 0", "experts 2 top_k 1 affinity cosine"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Decide(settings + token).status())) << settings;
  }
}

TEST(CompareWithExpectationsTest, SaysWhatDiffersAndWhere) {
  const auto cases = ParseRouteFile(
      "experts 2 top_k 1 capacity 1 coverage off\ntoken 0 .9 .1\ntoken 1 .8 .2\n"
      "expect e0: 1  dropped: (1,e0)  w0: e0=.9001\nexpect load: 1 0",
      "f.route");
  ASSERT_TRUE(cases.ok()) << cases.status();
  const auto outcome = DecideRouteCase(cases->front());
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  const auto differences = CompareWithExpectations(cases->front(), *outcome);
  ASSERT_TRUE(differences.ok()) << differences.status();
  EXPECT_THAT(*differences,
              testing::ElementsAre("line 4: e0: got 0, expected 1",
                                   "line 4: w0: got e0=0.899999976, expected e0=.9001"));
  RouteCase unknown = cases->front();
  unknown.expectations = {{.label = "e7", .items = {"-"}, .line = 9}};
  EXPECT_EQ(CompareWithExpectations(unknown, *outcome).status().message(),
            "line 9: there is nothing to expect of 'e7'");
}

}  // namespace
}  // namespace gatehouse
