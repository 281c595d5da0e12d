// Rule 11, by counting: 2,000 requests from several threads, with cancels, deadlines, readers that
// go away, steps and rows that fail, a cache for a handful of sequences and a short queue. Each
// ends exactly once, what succeeded is right, every block comes back, and nothing hangs.
#include <atomic>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/engine_harness.h"

namespace gatehouse {
namespace {

constexpr int kNumThreads = 4;
constexpr int kRequestsPerThread = 500;

struct Submitted {
  Request request;
  std::shared_ptr<RecordingSink> sink;
};

// One client thread: submits until its number is accepted, cancelling some on the way.
class Client {
 public:
  Client(EngineLoop& engine, uint32_t seed) : engine_(engine), random_(seed) {}

  void Run() {
    while (accepted_.size() < kRequestsPerThread) {
      Submitted next = {RandomRequest(), RandomSink()};
      const absl::StatusOr<Engine::Ticket> ticket = engine_.Submit(next.request, next.sink);
      if (ticket.ok()) {
        accepted_.push_back(std::move(next));
        if (Chance(5)) engine_.Cancel(*ticket - random_() % 20);  // sometimes somebody else's
      } else {
        ++num_refused_;
        EXPECT_TRUE(ticket.status().code() == absl::StatusCode::kResourceExhausted ||
                    ticket.status().code() == absl::StatusCode::kDeadlineExceeded)
            << ticket.status();
        EXPECT_EQ(next.sink->num_closes(), 0);
        std::this_thread::sleep_for(std::chrono::microseconds(300));
      }
    }
  }

  const std::vector<Submitted>& accepted() const { return accepted_; }
  int64_t num_refused() const { return num_refused_; }

 private:
  bool Chance(uint32_t one_in) { return random_() % one_in == 0; }

  Request RandomRequest() {
    Request request =
        HarnessRequest(1 + static_cast<int>(random_() % 100), 1 + static_cast<int>(random_() % 40),
                       static_cast<int>(random_() % 1000));
    request.sampling.seed = random_();
    request.priority = static_cast<Priority>(random_() % 3);
    if (Chance(3)) request.output.prompt_logprobs = 0;
    if (Chance(3)) request.output.routed_experts = true;
    if (Chance(3)) request.output.moe_report = true;
    if (Chance(6)) {
      request.deadline = SteadyClock().Now() + std::chrono::microseconds(random_() % 20000);
    }
    return request;
  }

  std::shared_ptr<RecordingSink> RandomSink() {
    return Chance(6) ? std::make_shared<RecordingSink>(static_cast<int64_t>(random_() % 12))
                     : std::make_shared<RecordingSink>();
  }

  EngineLoop& engine_;
  std::mt19937 random_;
  std::vector<Submitted> accepted_;
  int64_t num_refused_ = 0;
};

EngineHarnessOptions StressOptions() {
  EngineHarnessOptions options;
  options.scheduler = {.max_sequences = 12, .max_step_tokens = 64, .max_queued_requests = 24};
  options.worker = {.num_blocks = 24, .block_tokens = 8, .num_moe_layers = 2};
  options.worker.before_step = [](int64_t n, const StepPlan&) {
    return n % 400 == 399 ? absl::InternalError("injected") : absl::OkStatus();
  };
  options.worker.row_fails = [](int32_t token_id, int32_t position) {
    return token_id == 500 && position % 8 == 3;
  };
  return options;
}

TEST(EngineStressTest, EveryRequestEndsExactlyOnce) {
  EngineHarness harness(StressOptions());
  std::vector<Client> clients;
  for (uint32_t i = 0; i < kNumThreads; ++i) clients.emplace_back(harness.engine(), 100 + i);
  std::vector<std::thread> threads;
  for (Client& client : clients) threads.emplace_back([&client] { client.Run(); });
  for (std::thread& thread : threads) thread.join();
  harness.engine().Drain(kNoDeadline);

  std::map<absl::StatusCode, int> num_ended;
  int64_t num_refused = 0, num_preemptions = 0;
  for (const Client& client : clients) {
    num_refused += client.num_refused();
    for (const Submitted& submitted : client.accepted()) {
      ASSERT_EQ(submitted.sink->num_closes(), 1);
      const absl::Status status = submitted.sink->WaitForClose();
      ++num_ended[status.code()];
      const std::vector<int32_t> tokens = submitted.sink->token_ids();
      std::vector<int32_t> expected = ExpectedTokens(submitted.request);
      if (status.ok()) {
        const FinishedEvent finished = submitted.sink->EventsOf<FinishedEvent>().at(0);
        num_preemptions += finished.num_preemptions;
        EXPECT_EQ(tokens, expected);
        if (submitted.request.output.moe_report) {
          // Every row but the last token's, once: 2 layers of top 2.
          const size_t num_rows = submitted.request.prompt_ids.size() + tokens.size() - 1;
          EXPECT_EQ(finished.moe_report.value().num_kept, static_cast<int64_t>(num_rows) * 4);
        }
      } else {
        expected.resize(tokens.size());  // what came before the end is right too
        EXPECT_EQ(tokens, expected);
      }
    }
  }
  EXPECT_EQ(harness.observer().ended().size(), size_t{kNumThreads} * kRequestsPerThread);
  EXPECT_EQ(harness.engine().Status().num_kv_blocks_used, 0);
  EXPECT_FALSE(harness.engine().Status().has_work);
  // Each way to end has been taken, or the case proves less than it says.
  for (const absl::StatusCode code :
       {absl::StatusCode::kOk, absl::StatusCode::kCancelled, absl::StatusCode::kDeadlineExceeded,
        absl::StatusCode::kInternal}) {
    EXPECT_GT(num_ended[code], 0) << absl::StatusCodeToString(code);
  }
  EXPECT_GT(num_refused, 0);
  EXPECT_GT(num_preemptions, 0);
}

TEST(EngineStressTest, EndsWithItsOwnerInTheMiddleOfEverything) {
  for (uint32_t round = 0; round < 20; ++round) {
    EngineHarness harness(StressOptions());
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (int i = 0; i < 30; ++i) {
      auto sink = std::make_shared<RecordingSink>();
      const Request request = HarnessRequest(1 + i, 40, i);
      if (harness.engine().Submit(request, sink).ok()) sinks.push_back(std::move(sink));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(round * 100));
    harness.DestroyEngine();
    for (const auto& sink : sinks) EXPECT_EQ(sink->num_closes(), 1);
  }
}

}  // namespace
}  // namespace gatehouse
