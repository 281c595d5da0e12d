#include "server/stream_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"

namespace gatehouse {
namespace {

using Kind = StreamAction::Kind;
using ::testing::HasSubstr;

class FakeClock final : public Clock {
 public:
  TimePoint Now() const override { return TimePoint(Duration(now_.load())); }
  void Advance(Duration by) { now_ += by.count(); }

 private:
  std::atomic<int64_t> now_ = 0;
};

DeltaEvent Delta(int32_t id, std::string text) {
  DeltaEvent delta{.text = std::move(text), .tokens = {}};
  delta.tokens.push_back({.id = id, .bytes = "b", .logprob = {}, .top = {}, .routed_experts = {}});
  return delta;
}

class StreamQueueTest : public ::testing::Test {
 protected:
  FakeClock clock_;
  StreamQueue queue_{StreamLimits{}, clock_};
};

TEST_F(StreamQueueTest, GivesEventsInOrderOneWriteAtATimeAndThenTheFinish) {
  EXPECT_EQ(queue_.Next().kind, Kind::kNothing);
  EXPECT_TRUE(queue_.Push(StartedEvent{.num_prompt_tokens = 3}));
  EXPECT_TRUE(queue_.Push(Delta(7, "a")));
  EXPECT_TRUE(queue_.Push(FinishedEvent{}));
  queue_.Close(absl::OkStatus());

  StreamAction action = queue_.Next();
  ASSERT_EQ(action.kind, Kind::kWrite);
  EXPECT_EQ(std::get<StartedEvent>(action.event).num_prompt_tokens, 3);
  EXPECT_EQ(queue_.Next().kind, Kind::kNothing) << "a write is in flight";
  queue_.WriteDone(true);
  action = queue_.Next();
  EXPECT_EQ(std::get<DeltaEvent>(action.event).text, "a");
  queue_.WriteDone(true);
  action = queue_.Next();
  EXPECT_TRUE(std::holds_alternative<FinishedEvent>(action.event));
  EXPECT_EQ(queue_.Next().kind, Kind::kNothing) << "the last write is in flight";
  queue_.WriteDone(true);
  action = queue_.Next();
  EXPECT_EQ(action.kind, Kind::kFinish);
  EXPECT_TRUE(action.status.ok());
  EXPECT_EQ(queue_.Next().kind, Kind::kNothing) << "the finish is given once";
}

TEST_F(StreamQueueTest, MergesDeltasThatWaitBehindAWriteButNotAcrossOtherEvents) {
  queue_.Push(Delta(0, "0"));
  ASSERT_EQ(queue_.Next().kind, Kind::kWrite);
  for (int i = 1; i <= 5; ++i) queue_.Push(Delta(i, std::to_string(i)));
  queue_.Push(FinishedEvent{});
  queue_.WriteDone(true);

  const DeltaEvent merged = std::get<DeltaEvent>(queue_.Next().event);
  EXPECT_EQ(merged.text, "12345");
  ASSERT_EQ(merged.tokens.size(), 5u);
  EXPECT_EQ(merged.tokens[4].id, 5);
  queue_.WriteDone(true);
  EXPECT_TRUE(std::holds_alternative<FinishedEvent>(queue_.Next().event));
  EXPECT_EQ(queue_.unread_bytes(), 0u);
}

TEST_F(StreamQueueTest, MergesTheDeltasOfEachOutputThoughTheyTakeTurns) {
  queue_.Push(StartedEvent{});
  ASSERT_EQ(queue_.Next().kind, Kind::kWrite);
  const auto push = [&](int32_t output_index, const std::string& text) {
    DeltaEvent delta = Delta(1, text);
    delta.output_index = output_index;
    queue_.Push(std::move(delta));
  };
  for (int i = 0; i < 3; ++i) {
    push(0, "a");
    push(1, "b");
  }
  queue_.Push(FinishedEvent{.output_index = 1});
  push(0, "c");  // its text must not overtake the other's end
  queue_.WriteDone(true);
  std::string got;
  for (StreamAction next = queue_.Next(); next.kind == Kind::kWrite; next = queue_.Next()) {
    const auto* delta = std::get_if<DeltaEvent>(&next.event);
    got += delta == nullptr ? "|" : std::to_string(delta->output_index) + delta->text + " ";
    queue_.WriteDone(true);
  }
  EXPECT_EQ(got, "0aaa 1bbb |0c ");
  EXPECT_EQ(queue_.unread_bytes(), 0u);
}

TEST_F(StreamQueueTest, KeepsMergedMessagesBelowTheLimit) {
  const std::string text(100 << 10, 'x');
  queue_.Push(StartedEvent{});
  ASSERT_EQ(queue_.Next().kind, Kind::kWrite);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(queue_.Push(Delta(i, text)));
  size_t num_tokens = 0;
  for (int message = 0; message < 3; ++message) {
    queue_.WriteDone(true);
    const StreamAction action = queue_.Next();
    ASSERT_EQ(action.kind, Kind::kWrite);
    EXPECT_LE(EventBytes(action.event), StreamLimits{}.max_message_bytes);
    num_tokens += std::get<DeltaEvent>(action.event).tokens.size();
  }
  EXPECT_EQ(num_tokens, 5u);
  EXPECT_EQ(queue_.unread_bytes(), 0u);
}

TEST_F(StreamQueueTest, CutsALongPromptIntoChunksWithConsecutivePositions) {
  PromptEvent prompt{.first_position = 10, .tokens = {}};
  for (int i = 0; i < 2000; ++i) {
    TokenOutput token{.id = i, .bytes = "b", .logprob = {}, .top = {}, .routed_experts = {}};
    token.routed_experts = {.expert_ids = std::vector<int32_t>(100),
                            .weights = std::vector<float>(100)};
    prompt.tokens.push_back(std::move(token));
  }
  EXPECT_TRUE(queue_.Push(std::move(prompt))) << "1.4 MB, but asked for";
  queue_.Push(Delta(1, "after"));
  int next_id = 0, num_chunks = 0;
  StreamAction action = queue_.Next();
  while (action.kind == Kind::kWrite && std::holds_alternative<PromptEvent>(action.event)) {
    const auto& chunk = std::get<PromptEvent>(action.event);
    EXPECT_LE(EventBytes(action.event), StreamLimits{}.max_message_bytes);
    EXPECT_EQ(chunk.first_position, 10 + next_id);
    for (const TokenOutput& token : chunk.tokens) EXPECT_EQ(token.id, next_id++);
    ++num_chunks;
    queue_.WriteDone(true);
    action = queue_.Next();
  }
  EXPECT_EQ(next_id, 2000);
  EXPECT_GE(num_chunks, 6);
  EXPECT_EQ(std::get<DeltaEvent>(action.event).text, "after");
  EXPECT_EQ(queue_.unread_bytes(), 0u);
}

TEST_F(StreamQueueTest, LosesAStreamWithTooMuchUnreadAndSaysSoOnceTheWriteInFlightIsDone) {
  queue_.Push(StartedEvent{});
  ASSERT_EQ(queue_.Next().kind, Kind::kWrite);
  const std::string text(64 << 10, 'x');
  int num_kept = 0;
  while (queue_.Push(Delta(0, text))) ++num_kept;
  EXPECT_EQ(num_kept, 15) << "16 times 64 KiB and their ids are more than 1 MiB";
  EXPECT_EQ(queue_.unread_bytes(), 0u) << "what a lost stream holds is freed";
  EXPECT_FALSE(queue_.Push(Delta(0, "more")));
  queue_.Close(absl::CancelledError("the engine's reason"));
  EXPECT_EQ(queue_.Next().kind, Kind::kNothing);
  queue_.WriteDone(true);
  const StreamAction action = queue_.Next();
  ASSERT_EQ(action.kind, Kind::kFinish);
  EXPECT_EQ(action.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(action.status.message()), HasSubstr("limit is 1048576"));
}

TEST_F(StreamQueueTest, NamesTheLimitOfPromptsWhenAPromptIsTooMuch) {
  queue_.Push(Delta(0, "a"));
  PromptEvent prompt;
  TokenOutput token;
  token.bytes.assign(StreamLimits{}.max_unread_prompt_bytes, 'x');
  prompt.tokens.push_back(std::move(token));
  const SinkEvent event = std::move(prompt);
  const size_t num_bytes = EventBytes(event);
  EXPECT_FALSE(queue_.Push(event));
  queue_.Close(absl::OkStatus());
  EXPECT_THAT(std::string(queue_.Next().status.message()),
              HasSubstr(std::to_string(num_bytes) +
                        " bytes of the prompt wait to be read, the limit is 16777216"));
}

TEST_F(StreamQueueTest, LosesAStreamWhoseReaderTakesNothingForTheTimeLimit) {
  queue_.Push(StartedEvent{});
  ASSERT_EQ(queue_.Next().kind, Kind::kWrite);
  clock_.Advance(std::chrono::seconds(30));
  EXPECT_TRUE(queue_.Push(Delta(0, "a"))) << "30 s are allowed";
  EXPECT_FALSE(queue_.CheckStall());
  clock_.Advance(Duration(1));
  EXPECT_FALSE(queue_.Push(Delta(0, "b")));
}

TEST_F(StreamQueueTest, NoticesAStalledReaderAfterTheRequestHasEnded) {
  queue_.Push(FinishedEvent{});
  ASSERT_EQ(queue_.Next().kind, Kind::kWrite);
  queue_.Close(absl::OkStatus());
  clock_.Advance(std::chrono::seconds(31));
  EXPECT_TRUE(queue_.CheckStall());
  queue_.WriteDone(false);
  EXPECT_EQ(queue_.Next().status.code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(StreamQueueTest, AnIdleStreamIsNotStalled) {
  queue_.Push(StartedEvent{});
  ASSERT_EQ(queue_.Next().kind, Kind::kWrite);
  queue_.WriteDone(true);
  clock_.Advance(std::chrono::hours(1));
  EXPECT_FALSE(queue_.CheckStall());
  EXPECT_TRUE(queue_.Push(Delta(0, "a")));
}

TEST_F(StreamQueueTest, WaitsForTheEngineToCloseAnAbandonedStream) {
  queue_.Push(Delta(0, "a"));
  queue_.Abandon(absl::CancelledError("gone"));
  EXPECT_EQ(queue_.Next().kind, Kind::kNothing);
  EXPECT_FALSE(queue_.Push(Delta(1, "b")));
  queue_.Close(absl::OkStatus());
  EXPECT_EQ(queue_.Next().status.code(), absl::StatusCode::kCancelled);
}

TEST_F(StreamQueueTest, DropsWhatWaitsWhenTheConnectionIsGone) {
  queue_.Push(StartedEvent{});
  ASSERT_EQ(queue_.Next().kind, Kind::kWrite);
  queue_.Push(Delta(0, "a"));
  queue_.WriteDone(false);
  EXPECT_EQ(queue_.Next().kind, Kind::kNothing);
  EXPECT_FALSE(queue_.Push(Delta(1, "b")));
  queue_.Close(absl::CancelledError("reader gone"));
  EXPECT_EQ(queue_.Next().kind, Kind::kFinish);
}

TEST_F(StreamQueueTest, SendsWhatItHasBeforeAnErrorOfTheEngine) {
  queue_.Push(Delta(0, "a"));
  queue_.Close(absl::UnavailableError("draining"));
  ASSERT_EQ(queue_.Next().kind, Kind::kWrite);
  queue_.WriteDone(true);
  EXPECT_EQ(queue_.Next().status.code(), absl::StatusCode::kUnavailable);
}

// One thread pushes like an engine, two write like gRPC's, one cancels: every stream ends exactly
// once and never has two writes in flight. Meant for ThreadSanitizer.
TEST(StreamQueueThreadsTest, EveryStreamFinishesOnceWhateverTheOrder) {
  constexpr int kStreams = 200, kTokens = 50;
  std::mt19937 random(7);
  for (int stream = 0; stream < kStreams; ++stream) {
    SteadyClock clock;
    StreamQueue queue(StreamLimits{}, clock);
    std::atomic<int> num_finishes = 0, num_in_flight = 0, max_in_flight = 0, num_tokens = 0;
    std::atomic<bool> ok = true;
    const bool cancels = random() % 2 == 0;
    const auto write = [&] {
      while (num_finishes == 0) {
        const StreamAction action = queue.Next();
        if (action.kind == Kind::kFinish) {
          ++num_finishes;
          ok = action.status.ok();
        } else if (action.kind == Kind::kWrite) {
          max_in_flight = std::max(max_in_flight.load(), ++num_in_flight);
          if (const auto* delta = std::get_if<DeltaEvent>(&action.event)) {
            num_tokens += static_cast<int>(delta->tokens.size());
          }
          --num_in_flight;
          queue.WriteDone(true);
        } else {
          std::this_thread::yield();
        }
      }
    };
    std::thread first(write), second(write);
    std::thread canceller([&] {
      if (cancels) queue.Abandon(absl::CancelledError("cancelled"));
    });
    for (int i = 0; i < kTokens && queue.Push(Delta(i, "x")); ++i) {
    }
    queue.Close(absl::OkStatus());
    first.join();
    second.join();
    canceller.join();
    EXPECT_EQ(num_finishes, 1) << "stream " << stream;
    EXPECT_LE(max_in_flight, 1);
    EXPECT_TRUE(ok || cancels) << "stream " << stream;
    EXPECT_TRUE(!ok || num_tokens == kTokens) << "stream " << stream << ": " << num_tokens;
  }
}

}  // namespace
}  // namespace gatehouse
