#include "client/generate_output.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace gatehouse {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

const GenerateOutput::TimePoint kStart;

v1::GenerateResponse Delta(const std::string& text, int num_tokens = 1, int output_idx = 0) {
  v1::GenerateResponse event;
  event.mutable_delta()->set_text(text);
  event.mutable_delta()->set_output_index(output_idx);
  for (int i = 0; i < num_tokens; ++i) event.mutable_delta()->add_tokens()->set_id(i);
  return event;
}

v1::GenerateResponse Finished(int output_idx = 0) {
  v1::GenerateResponse event;
  event.mutable_finished()->set_output_index(output_idx);
  event.mutable_finished()->set_reason(v1::Finished::STOP_STRING);
  event.mutable_finished()->set_matched_stop("END");
  event.mutable_finished()->mutable_usage()->set_generated_tokens(3);
  return event;
}

TEST(GenerateOutputTest, PipesGetTheTextUnchanged) {
  GenerateOutput output({}, kStart);
  EXPECT_EQ(output.OnEvent(Delta("a\x1b["), kStart), "a\x1b[");
  EXPECT_EQ(output.OnEvent(Delta(""), kStart), "");
  EXPECT_EQ(output.OnEvent(Finished(), kStart), "");
  EXPECT_EQ(output.OnEnd(), "");
  EXPECT_TRUE(output.finished());
}

TEST(GenerateOutputTest, TerminalsGetVisibleControlsAndALineBreakAtTheEnd) {
  GenerateOutput output({.terminal = true}, kStart);
  EXPECT_EQ(output.OnEvent(Delta("a\x1b["), kStart), "a\\x1b[");
  EXPECT_EQ(output.OnEnd(), "\n");
  EXPECT_EQ(output.OnEnd(), "");
  GenerateOutput broken({.terminal = true}, kStart);
  broken.OnEvent(Delta("a\n"), kStart);
  EXPECT_EQ(broken.OnEnd(), "");
}

TEST(GenerateOutputTest, SeveralOutputsAreKeptApart) {
  GenerateOutput output({.num_outputs = 2}, kStart);
  EXPECT_EQ(output.OnEvent(Delta("one", 1, 0), kStart), "");
  EXPECT_EQ(output.OnEvent(Delta("two", 1, 1), kStart), "");
  EXPECT_EQ(output.OnEvent(Delta("!", 1, 0), kStart), "");
  EXPECT_EQ(output.OnEvent(Finished(1), kStart), "--- output 1\ntwo\n");
  EXPECT_FALSE(output.finished());
  EXPECT_EQ(output.OnEvent(Finished(0), kStart), "--- output 0\none!\n");
  EXPECT_TRUE(output.finished());
}

TEST(GenerateOutputTest, IndexesBeyondTheOutputsAskedForAreIgnored) {
  GenerateOutput output({.num_outputs = 2}, kStart);
  EXPECT_EQ(output.OnEvent(Delta("x", 1, 2'000'000'000), kStart), "");
  EXPECT_EQ(output.OnEvent(Delta("x", 1, -1), kStart), "");
  EXPECT_EQ(output.OnEvent(Finished(-5), kStart), "");
}

TEST(GenerateOutputTest, JsonIsOneObjectALineWithTheNamesOfTheProto) {
  GenerateOutput output({.json = true, .terminal = true}, kStart);
  const std::string line = output.OnEvent(Delta("line\nbreak", 2), kStart);
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
  const auto parsed = nlohmann::json::parse(line, nullptr, false);
  ASSERT_TRUE(parsed.is_object()) << line;
  EXPECT_EQ(parsed["delta"]["text"], "line\nbreak");
  EXPECT_EQ(parsed["delta"]["output_index"], 0);
  EXPECT_EQ(parsed["delta"]["tokens"][0]["id"], 0);  // zero is printed, not left out
  EXPECT_FALSE(parsed["delta"]["tokens"][0].contains("logprob"));
  EXPECT_EQ(output.OnEnd(), "");
}

TEST(GenerateOutputTest, StatsCountTokensAndRateTheGapsBetweenThem) {
  GenerateOutput output({}, kStart);
  v1::GenerateResponse started;
  started.mutable_started()->set_prompt_tokens(9);
  started.mutable_started()->set_cached_prompt_tokens(4);
  output.OnEvent(started, kStart + milliseconds(10));
  EXPECT_THAT(output.Stats(kStart + milliseconds(50)), HasSubstr("no token in 0.050 s"));
  output.OnEvent(Delta("a"), kStart + milliseconds(100));
  output.OnEvent(Delta("bc", 2), kStart + milliseconds(300));
  output.OnEvent(Finished(), kStart + milliseconds(310));
  const std::string stats = output.Stats(kStart + milliseconds(320));
  EXPECT_EQ(stats[0], '\n');  // the text stands on an open line
  EXPECT_THAT(stats, HasSubstr("9 prompt tokens (4 cached); 3 tokens received"));
  EXPECT_THAT(stats, HasSubstr("first after 0.100 s, then 10.0 tokens/s; 0.320 s in all"));
  EXPECT_THAT(stats, HasSubstr("ended by STOP_STRING 'END'"));
}

}  // namespace
}  // namespace gatehouse
