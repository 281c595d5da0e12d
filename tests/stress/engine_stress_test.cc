// Rule 11, by counting: 20,000 requests from several threads, of three tenants, with one output or
// several, prompts that begin alike, cancels, deadlines, readers that go away, steps and rows that
// fail, a cache for a handful of sequences and a short queue. Each ends exactly once, what
// succeeded is right, every block comes back, and nothing hangs.
//
// GATEHOUSE_STRESS_SECONDS in the environment goes on for that long, with other seeds each time.
#include <atomic>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "engine/sampling/philox.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/engine_harness.h"

namespace gatehouse {
namespace {

constexpr int kNumThreads = 4;
constexpr int kNumBatches = 20;
constexpr size_t kBatchRequests = 250;

struct Submitted {
  Request request;
  std::shared_ptr<RecordingSink> sink;
};

// What has been seen; a case that was never taken proves less than it says.
struct Tally {
  std::map<absl::StatusCode, int64_t> num_ended;
  int64_t num_refused = 0;
  int64_t num_preemptions = 0;
  int64_t num_outputs = 0;
  int64_t num_cached_prompt_tokens = 0;

  void Add(const Tally& other) {
    for (const auto& [code, count] : other.num_ended) num_ended[code] += count;
    num_refused += other.num_refused;
    num_preemptions += other.num_preemptions;
    num_outputs += other.num_outputs;
    num_cached_prompt_tokens += other.num_cached_prompt_tokens;
  }
};

// One client thread: batches of requests, some cancelled on the way, each judged when it has ended.
class Client {
 public:
  Client(EngineLoop& engine, uint32_t seed) : engine_(engine), random_(seed) {
    for (int i = 0; i < 3; ++i) {
      tenants_.push_back(std::make_shared<const Tenant>(Tenant{.name = "tenant" + std::to_string(i),
                                                               .weight = 1 + 2 * i,
                                                               .max_running_requests = 6 * i,
                                                               .max_queued_tokens = 400 * i}));
    }
  }

  void Run() {
    for (int batch = 0; batch < kNumBatches; ++batch) {
      std::vector<Submitted> accepted;
      while (accepted.size() < kBatchRequests) SubmitOne(accepted);
      for (const Submitted& submitted : accepted) Judge(submitted);
    }
  }

  const Tally& tally() const { return tally_; }

 private:
  bool Chance(uint32_t one_in) { return random_() % one_in == 0; }

  void SubmitOne(std::vector<Submitted>& accepted) {
    Submitted next = {RandomRequest(), RandomSink()};
    const absl::StatusOr<Engine::Ticket> ticket = engine_.Submit(next.request, next.sink);
    if (ticket.ok()) {
      accepted.push_back(std::move(next));
      if (Chance(5)) engine_.Cancel(*ticket - random_() % 20);  // sometimes somebody else's
      return;
    }
    ++tally_.num_refused;
    EXPECT_TRUE(ticket.status().code() == absl::StatusCode::kResourceExhausted ||
                ticket.status().code() == absl::StatusCode::kDeadlineExceeded)
        << ticket.status();
    EXPECT_EQ(next.sink->num_closes(), 0);
    std::this_thread::sleep_for(std::chrono::microseconds(300));
  }

  Request RandomRequest() {
    Request request =
        HarnessRequest(1 + static_cast<int>(random_() % 100), 1 + static_cast<int>(random_() % 40),
                       static_cast<int>(random_() % 50));
    request.sampling.seed = random_();
    if (Chance(4)) request.sampling.n = 2 + static_cast<int32_t>(random_() % 3);
    request.priority = static_cast<Priority>(random_() % 3);
    if (!Chance(4)) request.tenant = tenants_[random_() % tenants_.size()];
    if (Chance(4)) request.cache_salt = "salt";
    if (Chance(5)) request.output.prompt_logprobs = 0;
    if (Chance(5)) request.output.routed_experts = true;
    if (Chance(5)) request.output.moe_report = true;
    if (Chance(6)) {
      request.deadline = SteadyClock().Now() + std::chrono::microseconds(random_() % 20000);
    }
    return request;
  }

  std::shared_ptr<RecordingSink> RandomSink() {
    return Chance(6) ? std::make_shared<RecordingSink>(static_cast<int64_t>(random_() % 12))
                     : std::make_shared<RecordingSink>();
  }

  // What came is right, up to the end whatever that was.
  void Judge(const Submitted& submitted) {
    const absl::Status status = submitted.sink->WaitForClose();
    const Request& request = submitted.request;
    ++tally_.num_ended[status.code()];
    ASSERT_EQ(submitted.sink->num_closes(), 1);
    std::map<int32_t, std::vector<int32_t>> tokens;
    std::map<int32_t, FinishedEvent> finished;
    for (const SinkEvent& event : submitted.sink->events()) {
      if (const auto* delta = std::get_if<DeltaEvent>(&event)) {
        EXPECT_EQ(finished.count(delta->output_index), 0u) << "a token after the output's end";
        for (const TokenOutput& token : delta->tokens) {
          tokens[delta->output_index].push_back(token.id);
        }
      } else if (const auto* end = std::get_if<FinishedEvent>(&event)) {
        EXPECT_TRUE(finished.emplace(end->output_index, *end).second) << "finished twice";
      } else if (const auto* started = std::get_if<StartedEvent>(&event)) {
        tally_.num_cached_prompt_tokens += started->num_cached_prompt_tokens;
      }
    }
    if (status.ok()) {
      EXPECT_EQ(finished.size(), static_cast<size_t>(request.sampling.n));
    }
    for (const auto& [output_index, ids] : tokens) {
      ++tally_.num_outputs;
      Request alone = request;
      alone.sampling.seed = SeedOfOutput(*request.sampling.seed, output_index);
      std::vector<int32_t> expected = ExpectedTokens(alone);
      if (finished.count(output_index) == 0) expected.resize(ids.size());
      EXPECT_EQ(ids, expected);
    }
    for (const auto& [output_index, end] : finished) {
      tally_.num_preemptions += end.num_preemptions;
      if (!request.output.moe_report) continue;
      // Every row but the last token's, once: 2 layers of top 2.
      const size_t num_rows = request.prompt_ids.size() + tokens[output_index].size() - 1;
      EXPECT_EQ(end.moe_report.value().routes.kept, static_cast<int64_t>(num_rows) * 4);
    }
  }

  EngineLoop& engine_;
  std::mt19937 random_;
  std::vector<std::shared_ptr<const Tenant>> tenants_;
  Tally tally_;
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

Tally RunClients(uint32_t first_seed) {
  EngineHarness harness(StressOptions());
  std::vector<Client> clients;
  for (uint32_t i = 0; i < kNumThreads; ++i) clients.emplace_back(harness.engine(), first_seed + i);
  std::vector<std::thread> threads;
  for (Client& client : clients) threads.emplace_back([&client] { client.Run(); });
  for (std::thread& thread : threads) thread.join();
  harness.engine().Drain(kNoDeadline);
  EXPECT_EQ(harness.observer().ended().size(), kNumThreads * kNumBatches * kBatchRequests);
  EXPECT_EQ(harness.engine().Status().num_kv_blocks_used, 0);
  EXPECT_FALSE(harness.engine().Status().has_work);
  Tally tally;
  for (const Client& client : clients) tally.Add(client.tally());
  return tally;
}

TEST(EngineStressTest, EveryRequestEndsExactlyOnce) {
  const char* const seconds = std::getenv("GATEHOUSE_STRESS_SECONDS");
  const auto end = std::chrono::steady_clock::now() +
                   std::chrono::seconds(seconds == nullptr ? 0 : std::atoi(seconds));
  uint32_t seed = 100;
  do {
    Tally tally = RunClients(seed);
    for (const absl::StatusCode code :
         {absl::StatusCode::kOk, absl::StatusCode::kCancelled, absl::StatusCode::kDeadlineExceeded,
          absl::StatusCode::kInternal}) {
      EXPECT_GT(tally.num_ended[code], 0) << absl::StatusCodeToString(code);
    }
    EXPECT_GT(tally.num_refused, 0);
    EXPECT_GT(tally.num_preemptions, 0);
    EXPECT_GT(tally.num_outputs, tally.num_ended[absl::StatusCode::kOk]);
    EXPECT_GT(tally.num_cached_prompt_tokens, 0);
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
    seed += kNumThreads;
  } while (std::chrono::steady_clock::now() < end);
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
