// Several outputs of one request, through the engine.
#include "engine/output_stream.h"

#include <set>
#include <string>
#include <thread>
#include <vector>

#include "engine/sampling/philox.h"
#include "gtest/gtest.h"
#include "kernels/base/check.h"
#include "tests/testing/engine_harness.h"

namespace gatehouse {
namespace {

std::vector<int32_t> TokensOfOutput(const RecordingSink& sink, int32_t output_index) {
  std::vector<int32_t> ids;
  for (const DeltaEvent& delta : sink.EventsOf<DeltaEvent>()) {
    if (delta.output_index != output_index) continue;
    for (const TokenOutput& token : delta.tokens) ids.push_back(token.id);
  }
  return ids;
}

TEST(OutputStreamTest, StreamsSeveralOutputsOfOnePrompt) {
  EngineHarness harness({});
  Request request = HarnessRequest(40, 6);
  request.sampling.n = 3;
  request.output = {.prompt_logprobs = 0, .moe_report = true};
  const auto sink = harness.Start(request);
  EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
  harness.engine().Drain(kNoDeadline);  // the observer hears of the end after the sink
  EXPECT_EQ(sink->EventsOf<StartedEvent>().size(), 1u);
  size_t num_prompt_tokens = 0;
  for (const auto& prompt : sink->EventsOf<PromptEvent>())
    num_prompt_tokens += prompt.tokens.size();
  EXPECT_EQ(num_prompt_tokens, 40u);
  const std::vector<FinishedEvent> finished = sink->EventsOf<FinishedEvent>();
  ASSERT_EQ(finished.size(), 3u);
  std::set<int32_t> indices;
  for (const FinishedEvent& event : finished) {
    indices.insert(event.output_index);
    EXPECT_EQ(event.num_prompt_tokens, 40);
    EXPECT_EQ(event.num_generated_tokens, 6);
    EXPECT_EQ(event.moe_report->routes.assignments, 45 * 2 * 2);  // as if it were alone
  }
  EXPECT_EQ(indices, (std::set<int32_t>{0, 1, 2}));
  EXPECT_EQ(harness.observer().ended().at(0).num_generated_tokens, 18);
  EXPECT_EQ(harness.observer().num_first_tokens(), 3);
  EXPECT_EQ(harness.observer().num_later_tokens(), 15);
}

// The first equals the request for one output; the others draw for themselves, the same each time.
TEST(OutputStreamTest, EachOutputHasItsOwnDraws) {
  EngineHarness harness({});
  Request request = HarnessRequest(20, 8);
  request.sampling.temperature = 1;
  const std::vector<int32_t> alone = ExpectedTokens(request);
  request.sampling.n = 3;
  const auto sink = harness.Start(request), again = harness.Start(request);
  EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
  EXPECT_EQ(again->WaitForClose(), absl::OkStatus());
  EXPECT_EQ(TokensOfOutput(*sink, 0), alone);
  for (int32_t i = 1; i < 3; ++i) {
    Request equal = request;
    equal.sampling.seed = SeedOfOutput(*request.sampling.seed, i);
    EXPECT_EQ(TokensOfOutput(*sink, i), ExpectedTokens(equal)) << i;
    EXPECT_NE(TokensOfOutput(*sink, i), alone) << i;
    EXPECT_EQ(TokensOfOutput(*again, i), TokensOfOutput(*sink, i)) << i;
  }
}

TEST(OutputStreamTest, AStopStringEndsItsOutputAlone) {
  EngineHarness harness({});
  Request request = HarnessRequest(20, 12);
  request.sampling.temperature = 1;
  request.sampling.n = 2;
  Request second = request;
  second.sampling.seed = SeedOfOutput(*request.sampling.seed, 1);
  request.stop.strings = {absl::StrFormat("<%d>", ExpectedTokens(second)[3])};
  const auto sink = harness.Start(request);
  EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
  const std::vector<FinishedEvent> finished = sink->EventsOf<FinishedEvent>();
  ASSERT_EQ(finished.size(), 2u);
  EXPECT_EQ(finished[0].output_index, 1);
  EXPECT_EQ(finished[0].reason, FinishReason::kStopString);
  EXPECT_EQ(finished[0].num_generated_tokens, 4);
  EXPECT_EQ(finished[1].reason, FinishReason::kLength);
  EXPECT_EQ(TokensOfOutput(*sink, 0), ExpectedTokens(request));
}

// Cancel, deadline and a reader that goes: each takes all outputs along.
TEST(OutputStreamTest, WhoeverGivesUpARequestGivesUpAllItsOutputs) {
  Gate gate;
  EngineHarness harness({.worker = {.num_blocks = 64, .before_step = StepsBehind(gate, 4)}});
  Request request = HarnessRequest(20, 50);
  request.sampling.n = 3;
  Engine::Ticket ticket = 0;
  const auto cancelled = harness.Start(request, &ticket);
  Request expiring = request;
  expiring.deadline = SteadyClock().Now() + std::chrono::milliseconds(50);
  const auto expired = harness.Start(expiring);
  const auto leaving = std::make_shared<RecordingSink>(5);
  ASSERT_TRUE(harness.engine().Submit(request, leaving).ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  harness.engine().Cancel(ticket);
  gate.Open();
  EXPECT_EQ(cancelled->WaitForClose().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(expired->WaitForClose().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(leaving->WaitForClose().code(), absl::StatusCode::kCancelled);
  harness.engine().Drain(kNoDeadline);
  EXPECT_EQ(harness.engine().Status().num_kv_blocks_used, 0);
  EXPECT_EQ(harness.engine().Status().num_running + harness.engine().Status().num_waiting, 0);
}

TEST(OutputStreamTest, AFailingRowOfOneOutputEndsAll) {
  Request request = HarnessRequest(20, 10);
  request.sampling.temperature = 1;
  request.sampling.n = 3;
  Request second = request;
  second.sampling.seed = SeedOfOutput(*request.sampling.seed, 1);
  const int32_t bad_token = ExpectedTokens(second)[4];
  EngineHarness harness(
      {.worker = {.num_blocks = 64, .row_fails = [&](int32_t token_id, int32_t position) {
                    return position == 24 && token_id == bad_token;
                  }}});
  const auto sink = harness.Start(request);
  EXPECT_EQ(sink->WaitForClose().code(), absl::StatusCode::kInternal);
  harness.engine().Drain(kNoDeadline);
  EXPECT_EQ(sink->num_closes(), 1);
  EXPECT_EQ(harness.engine().Status().num_kv_blocks_used, 0);
}

// A run of byte tokens is held back to its end, and the end of the output may be just that.
class HeldBytesTest : public ::testing::Test {
 protected:
  HeldBytesTest() {
    auto tokenizer =
        LoadTokenizer(std::string(GATEHOUSE_SOURCE_DIR) + "/tests/tokenizer/data/mixtral");
    GATEHOUSE_CHECK(tokenizer.ok()) << tokenizer.status().ToString();
    tokenizer_ = *std::move(tokenizer);
    newline_ = tokenizer_->TokenToId("<0x0A>").value();
  }

  // `num_newlines` of them and then, if there is one, a token that stops; the last has `reason`.
  void Run(int num_newlines, std::optional<int32_t> stop_id, FinishReason reason) {
    OutputStream stream({.request = std::make_shared<const Request>(request_),
                         .tokenizer = tokenizer_.get(),
                         .eos_token_ids = {},
                         .seed = 1,
                         .output_index = 0});
    text_.clear();
    const int num_tokens = num_newlines + (stop_id ? 1 : 0);
    for (int i = 0; i < num_tokens; ++i) {
      const bool is_last = i + 1 == num_tokens;
      const RowSample sample{.token_id = i < num_newlines ? newline_ : *stop_id};
      text_ += stream.Append(sample, is_last ? std::optional(reason) : std::nullopt, {}).text;
    }
    finished_ = stream.Finished();
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  int32_t newline_ = 0;
  Request request_{.prompt_ids = {1}};
  std::string text_;
  FinishedEvent finished_;
};

TEST_F(HeldBytesTest, AStopStringInThemIsFoundAtTheLastToken) {
  request_.stop.strings = {"\n\n"};
  Run(3, std::nullopt, FinishReason::kLength);
  EXPECT_EQ(finished_.reason, FinishReason::kStopString);
  EXPECT_EQ(finished_.matched_stop, "\n\n");
  EXPECT_EQ(text_, "");
  Run(1, std::nullopt, FinishReason::kLength);
  EXPECT_EQ(finished_.reason, FinishReason::kLength);
  EXPECT_EQ(text_, "\n");
}

TEST_F(HeldBytesTest, AStopStringInThemComesBeforeTheTokenThatStops) {
  const int32_t eos = tokenizer_->TokenToId("</s>").value();
  request_.stop.strings = {"\n\n"};
  Run(2, eos, FinishReason::kStopEos);
  EXPECT_EQ(finished_.reason, FinishReason::kStopString);
  EXPECT_FALSE(finished_.matched_stop_token_id.has_value());
  EXPECT_EQ(text_, "");
  Run(1, eos, FinishReason::kStopEos);
  EXPECT_EQ(finished_.reason, FinishReason::kStopEos);
  EXPECT_EQ(finished_.matched_stop_token_id, eos);
  EXPECT_EQ(text_, "\n");
}

TEST_F(HeldBytesTest, AStopStringThatMayNotStopYetIsText) {
  request_.stop.strings = {"\n\n"};
  request_.stop.min_new_tokens = 3;
  Run(3, std::nullopt, FinishReason::kLength);
  EXPECT_EQ(finished_.reason, FinishReason::kLength);
  EXPECT_EQ(text_, "\n\n\n");
}

}  // namespace
}  // namespace gatehouse
