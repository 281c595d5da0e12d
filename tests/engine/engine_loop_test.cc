#include "engine/engine_loop.h"

#include <atomic>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "engine/sampling/philox.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/engine_harness.h"
#include "tests/testing/fake_clock.h"

namespace gatehouse {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Steps that stop before the third until the engine drains, so that its requests are still there.
std::function<absl::Status(int64_t, const StepPlan&)> StepsUntilDraining(
    const std::atomic<EngineLoop*>& engine) {
  return [&engine](int64_t n, const StepPlan&) {
    while (n == 2 && (engine.load() == nullptr || !engine.load()->Status().draining)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return absl::OkStatus();
  };
}

TEST(EngineLoopTest, StreamsARequestFromStartToFinish) {
  EngineHarness harness({});
  Request request = HarnessRequest(5, 4);
  request.output = {.top_logprobs = 2, .token_ids = true};
  const auto sink = harness.Start(request);
  EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());

  const std::vector<SinkEvent> events = sink->events();
  ASSERT_EQ(events.size(), 6u);  // started, one for each token, finished
  const auto& started = std::get<StartedEvent>(events.front());
  EXPECT_EQ(started.num_prompt_tokens, 5);
  EXPECT_EQ(started.prompt_token_ids, request.prompt_ids);
  const std::vector<int32_t> expected = ExpectedTokens(request);
  EXPECT_EQ(sink->token_ids(), expected);
  std::string text;
  for (const int32_t id : expected) text += absl::StrFormat("<%d>", id);
  EXPECT_EQ(sink->text(), text);
  const auto& first = std::get<DeltaEvent>(events[1]).tokens[0];
  const RowSample sample =
      FakeWorker::Choose(request.prompt_ids, 1000,
                         {.temperature = 1, .uniform = UniformAt(42, 0), .num_top_logprobs = 2});
  EXPECT_EQ(first.bytes, absl::StrFormat("<%d>", expected[0]));
  EXPECT_EQ(first.logprob, sample.logprob);
  ASSERT_EQ(first.top.size(), 2u);
  EXPECT_EQ(first.top[0].id, sample.top[0].id);
  EXPECT_FALSE(first.routed_experts.has_value());
  const auto& finished = std::get<FinishedEvent>(events.back());
  EXPECT_EQ(finished.reason, FinishReason::kLength);
  EXPECT_EQ(finished.num_prompt_tokens, 5);
  EXPECT_EQ(finished.num_generated_tokens, 4);
  EXPECT_GE(finished.total_seconds, finished.time_to_first_token_seconds);
  EXPECT_FALSE(finished.moe_report.has_value());
}

TEST(EngineLoopTest, SendsLogprobsOnlyWhenAsked) {
  EngineHarness harness({});
  const auto sink = harness.Start(HarnessRequest(5, 2));
  sink->WaitForClose().IgnoreError();
  EXPECT_THAT(sink->EventsOf<PromptEvent>(), IsEmpty());
  for (const DeltaEvent& delta : sink->EventsOf<DeltaEvent>()) {
    EXPECT_FALSE(delta.tokens[0].logprob.has_value());
  }
}

// Steps of at most 7 rows: chunk borders fall inside the prompt.
TEST(EngineLoopTest, ReportsThePromptInOrderAcrossChunks) {
  EngineHarness harness({.scheduler = {.max_sequences = 2, .max_step_tokens = 7}});
  Request request = HarnessRequest(30, 3);
  request.output = {.prompt_logprobs = 1, .routed_experts = true};
  const auto sink = harness.Start(request);
  EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
  std::vector<int32_t> seen;
  for (const PromptEvent& event : sink->EventsOf<PromptEvent>()) {
    EXPECT_EQ(event.first_position, static_cast<int32_t>(seen.size()));
    for (const TokenOutput& token : event.tokens) {
      const std::vector<int32_t> before = seen;
      seen.push_back(token.id);
      ASSERT_TRUE(token.routed_experts.has_value());
      EXPECT_EQ(token.routed_experts->expert_ids.size(), 4u);  // 2 layers of top 2
      EXPECT_EQ(token.routed_experts->expert_ids[0], FakeWorker::FirstExpert(seen, 8));
      EXPECT_THAT(token.routed_experts->weights, Each(0.5f));
      if (before.empty()) {
        EXPECT_FALSE(token.logprob.has_value());
        continue;
      }
      const RowSample expected =
          FakeWorker::Choose(before, 1000, {.forced_id = token.id, .num_top_logprobs = 1});
      EXPECT_EQ(token.logprob, expected.logprob) << "position " << before.size();
      EXPECT_EQ(token.top[0].id, expected.top[0].id);
    }
  }
  EXPECT_EQ(seen, request.prompt_ids);
}

TEST(EngineLoopTest, RoutesOfAGeneratedTokenAreThoseOfTheRowBefore) {
  EngineHarness harness({});
  Request request = HarnessRequest(6, 5);
  request.output.routed_experts = true;
  const auto sink = harness.Start(request);
  EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
  std::vector<int32_t> tokens = request.prompt_ids;
  for (const DeltaEvent& delta : sink->EventsOf<DeltaEvent>()) {
    ASSERT_TRUE(delta.tokens[0].routed_experts.has_value());
    EXPECT_EQ(delta.tokens[0].routed_experts->expert_ids[0], FakeWorker::FirstExpert(tokens, 8));
    tokens.push_back(delta.tokens[0].id);
  }
}

TEST(EngineLoopTest, StopStringsEndTheTextAcrossTokenBorders) {
  EngineHarness harness({});
  const Request base = HarnessRequest(5, 6);
  const std::vector<int32_t> tokens = ExpectedTokens(base);
  std::vector<std::string> pieces;
  for (const int32_t id : tokens) pieces.push_back(absl::StrFormat("<%d>", id));
  // The end of the second token and the beginning of the third.
  const std::string stop = pieces[1].substr(1) + pieces[2].substr(0, 2);
  for (const bool include : {false, true}) {
    Request request = base;
    request.stop.strings = {"never", stop};
    request.stop.include_stop = include;
    const auto sink = harness.Start(request);
    EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
    EXPECT_EQ(sink->text(), pieces[0] + "<" + (include ? stop : ""));
    const FinishedEvent finished = sink->EventsOf<FinishedEvent>().at(0);
    EXPECT_EQ(finished.reason, FinishReason::kStopString);
    EXPECT_EQ(finished.matched_stop, stop);
    EXPECT_EQ(finished.num_generated_tokens, 3);
  }
  Request patient = base;
  patient.stop.strings = {stop};
  patient.stop.min_new_tokens = 3;
  const auto sink = harness.Start(patient);
  EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
  EXPECT_EQ(sink->EventsOf<FinishedEvent>().at(0).reason, FinishReason::kLength);
}

TEST(EngineLoopTest, AStopStringInTheLastTokenIsTheReason) {
  EngineHarness harness({});
  Request request = HarnessRequest(5, 2);
  request.stop.strings = {absl::StrFormat("%d>", ExpectedTokens(request)[1])};
  const auto sink = harness.Start(request);
  EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
  EXPECT_EQ(sink->EventsOf<FinishedEvent>().at(0).reason, FinishReason::kStopString);
}

TEST(EngineLoopTest, AStoppingTokenGivesTextOnlyWhenIncluded) {
  EngineHarness harness({});
  const Request base = HarnessRequest(5, 6);
  const std::vector<int32_t> tokens = ExpectedTokens(base);
  const std::string first = absl::StrFormat("<%d>", tokens[0]);
  const std::string second = absl::StrFormat("<%d>", tokens[1]);
  for (const bool include : {false, true}) {
    Request request = base;
    request.stop.token_ids = {tokens[1]};
    request.stop.include_stop = include;
    const auto sink = harness.Start(request);
    EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
    EXPECT_EQ(sink->text(), include ? first + second : first);
    const FinishedEvent finished = sink->EventsOf<FinishedEvent>().at(0);
    EXPECT_EQ(finished.reason, FinishReason::kStopToken);
    EXPECT_EQ(finished.matched_stop_token_id, tokens[1]);
    EXPECT_THAT(sink->token_ids(), ElementsAre(tokens[0], tokens[1]));
  }
}

TEST(EngineLoopTest, ASpecialStoppingTokenGivesItsTextOnlyWhenIncluded) {
  const Request base = HarnessRequest(5, 6);
  const std::vector<int32_t> tokens = ExpectedTokens(base);
  // Another special token on the way has no text; an unfinished character stands before the last.
  std::vector<std::string> pieces = FakeTokenizer::NumberedPieces(1000);
  pieces[tokens[1]] = "\xe2\x82";
  EngineHarness harness(
      {.eos_token_ids = {tokens[2]}, .pieces = pieces, .special_ids = {tokens[0], tokens[2]}});
  for (const bool include : {false, true}) {
    Request request = base;
    request.stop.include_stop = include;
    const auto sink = harness.Start(request);
    EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
    EXPECT_EQ(sink->text(),
              "\xef\xbf\xbd" + (include ? absl::StrFormat("<%d>", tokens[2]) : std::string()));
  }
}

TEST(EngineLoopTest, EosEndsARequestAndMinNewTokensPutsItOff) {
  const Request base = HarnessRequest(5, 6);
  const std::vector<int32_t> eos = {ExpectedTokens(base)[2]};
  EngineHarness harness({.eos_token_ids = eos});
  const auto sink = harness.Start(base);
  EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
  const FinishedEvent finished = sink->EventsOf<FinishedEvent>().at(0);
  EXPECT_EQ(finished.reason, FinishReason::kStopEos);
  EXPECT_EQ(finished.num_generated_tokens, 3);
  EXPECT_EQ(finished.matched_stop_token_id, eos[0]);
  Request patient = base;
  patient.stop.min_new_tokens = 6;
  const auto late = harness.Start(patient);
  EXPECT_EQ(late->WaitForClose(), absl::OkStatus());
  EXPECT_EQ(late->token_ids(), ExpectedTokens(patient, 1000, eos));
  EXPECT_NE(late->token_ids()[2], eos[0]);
}

TEST(EngineLoopTest, TextIsCutAtCharacterBorders) {
  // Half characters and whole ones; what is left unfinished at the end becomes U+FFFD.
  const std::vector<std::string> pieces = {"\xc3", "\xa9", "a", "\xe2\x82", "\xac", "\xc3\xa9"};
  EngineHarness harness({.pieces = pieces});
  bool was_cut = false;
  for (int content = 0; content < 20; ++content) {
    Request request = HarnessRequest(3, 12, content, 6);
    const auto sink = harness.Start(request);
    EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
    IncrementalDecoder decoder(harness.engine().tokenizer());
    std::vector<std::string> expected;
    for (const int32_t id : sink->token_ids()) expected.push_back(decoder.Append(id));
    const std::string rest = decoder.Flush();
    was_cut |= !rest.empty();
    expected.back() += rest;
    std::vector<std::string> texts;
    for (const DeltaEvent& delta : sink->EventsOf<DeltaEvent>()) texts.push_back(delta.text);
    EXPECT_EQ(texts, expected);
  }
  EXPECT_TRUE(was_cut) << "no case ended inside a character";
}

TEST(EngineLoopTest, RefusesInvalidRequestsWithoutTouchingTheSink) {
  EngineHarness harness({.worker = {.num_blocks = 4, .block_tokens = 16}});
  EXPECT_EQ(harness.engine().limits().max_context, 64) << "what the cache can hold";
  EXPECT_EQ(harness.engine().model().max_context, 64);
  const auto sink = std::make_shared<RecordingSink>();
  const auto refused = harness.engine().Submit(HarnessRequest(60, 5), sink);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()),
              AllOf(HasSubstr("stop.max_new_tokens: got 5"), HasSubstr("64")));
  harness.DestroyEngine();
  EXPECT_EQ(sink->num_closes(), 0);
  EXPECT_THAT(sink->events(), IsEmpty());
}

TEST(EngineLoopTest, RefusesWhenTheQueueIsFull) {
  Gate gate;
  EngineHarnessOptions options = {.scheduler = {.max_sequences = 1, .max_queued_requests = 1}};
  options.worker.before_step = StepsBehind(gate, 0);
  EngineHarness harness(options);
  const auto first = harness.Start(HarnessRequest(4, 2)),
             second = harness.Start(HarnessRequest(4, 2));
  const auto sink = std::make_shared<RecordingSink>();
  const auto refused = harness.engine().Submit(HarnessRequest(4, 2), sink);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.status().message()),
              AllOf(HasSubstr("1 requests"), HasSubstr("limit 1")));
  EXPECT_GE(harness.engine().RetryAfter("default"), CompletionRate::kShortestRetry);
  EXPECT_TRUE(harness.engine().Status().has_work);
  gate.Open();
  EXPECT_EQ(first->WaitForClose(), absl::OkStatus());
  EXPECT_EQ(second->WaitForClose(), absl::OkStatus());
}

TEST(EngineLoopTest, CancelEndsWaitingAndRunningRequests) {
  Gate gate;
  EngineHarnessOptions options = {.scheduler = {.max_sequences = 1}};
  options.worker.before_step = StepsBehind(gate, 5);
  EngineHarness harness(options);
  Engine::Ticket running_ticket = 0, waiting_ticket = 0;
  const auto running = harness.Start(HarnessRequest(4, 800), &running_ticket);
  const auto waiting = harness.Start(HarnessRequest(4, 800), &waiting_ticket);
  running->WaitForEvents(6).IgnoreError();
  harness.engine().Cancel(waiting_ticket);
  harness.engine().Cancel(running_ticket);
  harness.engine().Cancel(running_ticket);  // twice: no error
  harness.engine().Cancel(987654321);       // unknown: no error
  gate.Open();
  EXPECT_EQ(waiting->WaitForClose().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(waiting->events(), IsEmpty());
  EXPECT_EQ(running->WaitForClose().code(), absl::StatusCode::kCancelled);
  EXPECT_LE(running->token_ids().size(), 6u) << "it must end within the step";
  harness.engine().Cancel(running_ticket);  // ended: no error
  harness.engine().Drain(kNoDeadline);
  EXPECT_EQ(harness.engine().Status().num_kv_blocks_used, 0);
}

TEST(EngineLoopTest, DeadlinesEndWaitingAndRunningRequestsWithinAStep) {
  FakeClock clock;
  EngineHarnessOptions options = {.scheduler = {.max_sequences = 1}};
  options.worker.before_step = [&](int64_t, const StepPlan&) {
    clock.Advance(std::chrono::seconds(1));
    return absl::OkStatus();
  };
  EngineHarness harness(options, &clock);
  Request request = HarnessRequest(4, 1000);
  request.deadline = clock.Now() + std::chrono::seconds(5);
  Request behind = HarnessRequest(4, 10);
  behind.deadline = clock.Now() + std::chrono::seconds(4);
  const auto running = harness.Start(request);
  const auto waiting = std::make_shared<RecordingSink>();
  const bool accepted = harness.engine().Submit(behind, waiting).ok();
  EXPECT_EQ(running->WaitForClose().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(running->token_ids().size(), 5u);  // a token a second
  if (accepted) {
    EXPECT_EQ(waiting->WaitForClose().code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_THAT(waiting->events(), IsEmpty()) << "it must not have been worked on";
  }
  EXPECT_EQ(harness.engine().Submit(request, waiting).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(EngineLoopTest, AReaderThatRefusesEventsLosesItsRequestAlone) {
  EngineHarness harness({});
  const auto slow = std::make_shared<RecordingSink>(/*num_accepted_events=*/3);
  ASSERT_TRUE(harness.engine().Submit(HarnessRequest(4, 50), slow).ok());
  const auto other = harness.Start(HarnessRequest(4, 50));
  EXPECT_EQ(slow->WaitForClose().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(slow->events().size(), 4u);  // nothing after the refusal
  EXPECT_EQ(other->WaitForClose(), absl::OkStatus());
}

TEST(EngineLoopTest, AFailedStepEndsItsRequestsAndTheEngineGoesOn) {
  EngineHarnessOptions options;
  options.worker.before_step = [](int64_t n, const StepPlan&) {
    return n == 2 ? absl::InternalError("device broken") : absl::OkStatus();
  };
  EngineHarness harness(options);
  const auto failed = harness.Start(HarnessRequest(4, 50));
  const absl::Status status = failed->WaitForClose();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("device broken"));
  EXPECT_EQ(failed->token_ids().size(), 2u);
  const Request request = HarnessRequest(4, 5);
  const auto later = harness.Start(request);
  EXPECT_EQ(later->WaitForClose(), absl::OkStatus());
  EXPECT_EQ(later->token_ids(), ExpectedTokens(request));
}

// Ranks go in the middle of steps and come back, several times; once all but the first are gone.
TEST(EngineLoopTest, LostRanksLoseNoRequestAndChangeNoToken) {
  EngineHarnessOptions options;
  options.scheduler = {.max_sequences = 12, .max_step_tokens = 64};
  options.worker.num_ranks = 3;
  options.worker.ranks_up = [](int64_t n) -> std::vector<int> {
    if (n == 6) return {0, 1};
    if (n >= 20 && n < 30) return {0, 2};
    if (n >= 40 && n < 50) return {0};
    if (n >= 50 && n % 5 == 0) return {0, 1};
    return {0, 1, 2};
  };
  EngineHarness harness(options);
  std::vector<Request> requests;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 40; ++i) {
    requests.push_back(HarnessRequest(5 + 3 * i, 20, i / 2));
    requests.back().sampling.temperature = i % 2 == 0 ? 0 : 1;
    sinks.push_back(harness.Start(requests.back()));
  }
  for (size_t i = 0; i < sinks.size(); ++i) {
    EXPECT_EQ(sinks[i]->WaitForClose(), absl::OkStatus());
    EXPECT_EQ(sinks[i]->token_ids(), ExpectedTokens(requests[i])) << "request " << i;
  }
  const EngineStatus status = harness.engine().Status();
  EXPECT_GT(status.membership.epoch, 6);
  EXPECT_THAT(status.last_loss, testing::HasSubstr("lost in epoch"));
}

TEST(EngineLoopTest, AStepThatLosesRanksForEverEndsItsRequests) {
  EngineHarnessOptions options;
  options.worker.num_ranks = 2;
  options.worker.before_step = [](int64_t n, const StepPlan&) {
    return n < 20 ? absl::UnavailableError("rank 1 lost in epoch 0") : absl::OkStatus();
  };
  EngineHarness harness(options);
  EXPECT_EQ(harness.Start(HarnessRequest(5, 4))->WaitForClose().code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(harness.Start(HarnessRequest(5, 4))->WaitForClose().code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(harness.Start(HarnessRequest(5, 4))->WaitForClose(), absl::OkStatus());
}

TEST(EngineLoopTest, DrainLetsRequestsFinishAndRefusesNewOnes) {
  EngineHarness harness({});
  const auto sink = harness.Start(HarnessRequest(4, 200));
  harness.engine().Drain(kNoDeadline);
  EXPECT_EQ(sink->num_closes(), 1);
  EXPECT_EQ(sink->token_ids().size(), 200u);
  EXPECT_EQ(harness.engine().Submit(HarnessRequest(4, 2), sink).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_TRUE(harness.engine().Status().draining);
  EXPECT_FALSE(harness.engine().Status().has_work);
}

TEST(EngineLoopTest, DrainClosesWhatIsLeftAtItsDeadline) {
  FakeClock clock;
  std::atomic<EngineLoop*> engine = nullptr;
  EngineHarnessOptions options = {.scheduler = {.max_sequences = 1}};
  options.worker.before_step = [&, wait = StepsUntilDraining(engine)](int64_t n,
                                                                      const StepPlan& plan) {
    clock.Advance(std::chrono::seconds(1));
    return wait(n, plan);
  };
  EngineHarness harness(options, &clock);
  engine = &harness.engine();
  const auto running = harness.Start(HarnessRequest(4, 1000));
  const auto waiting = harness.Start(HarnessRequest(4, 1000));
  harness.engine().Drain(clock.Now() + std::chrono::seconds(6));
  EXPECT_EQ(running->WaitForClose().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(waiting->WaitForClose().code(), absl::StatusCode::kUnavailable);
  EXPECT_GE(running->token_ids().size(), 3u) << "it may run until then";
  EXPECT_LE(running->token_ids().size(), 9u) << "and not for longer";
  EXPECT_EQ(harness.engine().Status().num_kv_blocks_used, 0);
}

TEST(EngineLoopTest, ItsEndClosesEveryRequestOnce) {
  std::atomic<EngineLoop*> engine = nullptr;
  EngineHarnessOptions options = {.scheduler = {.max_sequences = 2}};
  options.worker.before_step = StepsUntilDraining(engine);
  EngineHarness harness(options);
  engine = &harness.engine();
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 10; ++i) sinks.push_back(harness.Start(HarnessRequest(4, 1000)));
  harness.DestroyEngine();
  for (const auto& sink : sinks) {
    EXPECT_EQ(sink->num_closes(), 1);
    EXPECT_EQ(sink->WaitForClose().code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_EQ(harness.observer().ended().size(), 10u);
}

// Tokens, text, log-probabilities and routes, all in one string, so that one comparison sees all.
std::string Transcript(const RecordingSink& sink) {
  std::string transcript;
  const auto add = [&](const TokenOutput& token) {
    transcript += absl::StrFormat("%d %a:", token.id, token.logprob.value_or(1));
    for (const TokenLogprob& top : token.top) transcript += absl::StrFormat(" %d", top.id);
    for (const int32_t id : token.routed_experts->expert_ids)
      transcript += absl::StrFormat(" e%d", id);
    transcript += "\n";
  };
  for (const PromptEvent& event : sink.EventsOf<PromptEvent>()) {
    for (const TokenOutput& token : event.tokens) add(token);
  }
  for (const DeltaEvent& delta : sink.EventsOf<DeltaEvent>()) {
    transcript += delta.text + " ";
    add(delta.tokens[0]);
  }
  return transcript;
}

TEST(EngineLoopTest, ARequestYieldsTheSameAloneAndInAnyCompany) {
  std::vector<Request> requests;
  for (int i = 0; i < 32; ++i) {
    requests.push_back(HarnessRequest(5 + 3 * i, 40, i));
    requests[i].sampling.seed = i;
    requests[i].stop.strings = {"7><"};
    requests[i].output = {.top_logprobs = 2, .prompt_logprobs = 1, .routed_experts = true};
  }
  std::vector<std::string> alone;
  for (const Request& request : requests) {
    EngineHarness harness({});
    const auto sink = harness.Start(request);
    EXPECT_EQ(sink->WaitForClose(), absl::OkStatus());
    alone.push_back(Transcript(*sink));
  }
  int32_t num_preemptions = 0;
  for (const int32_t max_step_tokens : {19, 33, 512}) {
    Gate gate;
    EngineHarness harness({.scheduler = {.max_sequences = 16, .max_step_tokens = max_step_tokens},
                           .worker = {.num_blocks = 24,
                                      .block_tokens = 8,
                                      .num_moe_layers = 2,
                                      .before_step = StepsBehind(gate, 0)}});
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (const Request& request : requests) sinks.push_back(harness.Start(request));
    gate.Open();
    for (int i = 0; i < 32; ++i) {
      EXPECT_EQ(sinks[i]->WaitForClose(), absl::OkStatus());
      EXPECT_EQ(Transcript(*sinks[i]), alone[i]) << "request " << i;
      num_preemptions += sinks[i]->EventsOf<FinishedEvent>().at(0).num_preemptions;
    }
  }
  EXPECT_GT(num_preemptions, 0) << "the case must preempt to mean something";
}

}  // namespace
}  // namespace gatehouse
