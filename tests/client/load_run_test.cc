#include "client/load_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>

#include "client/load_report.h"
#include "tests/client/fake_server.h"

namespace gatehouse {
namespace {

using ::testing::Contains;
using ::testing::IsEmpty;
using ::testing::Pair;

class LoadRunTest : public ::testing::Test {
 protected:
  LoadRunTest() {
    for (int i = 0; i < 2; ++i) {
      clients_.push_back(*GatehouseClient::Connect(
          {.target = server_.target(), .connection_idx = i, .retry = {.max_tries = 1}}));
    }
  }
  // Every prompt of the run is `text`.
  void UsePrompt(LoadOptions& options, const std::string& text) {
    options.prompt_file = testing::TempDir() + "load_run_test_" + text + ".txt";
    std::ofstream(options.prompt_file) << text << "\n";
  }
  LoadResult Run(const LoadOptions& options) {
    const auto plan = RequestPlan::Create(options, *clients_[0]->GetModelInfo({}, {}));
    EXPECT_TRUE(plan.ok()) << plan.status();
    LoadRun run(clients_, options, *plan);
    return run.Run(0, [&](const LoadProgress& progress) {
      last_progress_ = progress;
      if (on_progress_) on_progress_();
      if (stop_after_ > 0 && progress.num_tokens >= stop_after_) run.Stop();
    });
  }

  FakeServer server_;
  std::vector<std::unique_ptr<GatehouseClient>> clients_;
  LoadProgress last_progress_;
  int64_t stop_after_ = 0;
  std::function<void()> on_progress_;
};

TEST_F(LoadRunTest, ClosedLoopCountsWhatWasSentAndReceived) {
  const LoadOptions options{
      .num_clients = 4, .num_requests = 50, .num_prompt_tokens = 3, .max_new_tokens = 7};
  const LoadResult result = Run(options);
  EXPECT_EQ(server_.service.num_requests, 50);
  EXPECT_EQ(result.num_started, 50);
  EXPECT_EQ(result.num_done, 50);
  EXPECT_THAT(result.errors, IsEmpty());
  EXPECT_EQ(result.num_tokens, 350);
  EXPECT_EQ(result.num_messages, 200);  // 2 + 2 + 2 + 1
  EXPECT_EQ(result.num_prompt_tokens, 150);
  EXPECT_LE(result.max_running, 4);
  EXPECT_EQ(result.time_to_first_token.count(), 50);
  EXPECT_EQ(result.inter_token.count(), 50);
  EXPECT_EQ(result.message_gap.count(), 150);
  EXPECT_EQ(result.request_duration.count(), 50);
  EXPECT_GT(result.wall_seconds, 0);
  EXPECT_EQ(last_progress_.num_ended, 50);
  EXPECT_EQ(last_progress_.num_running, 0);
}

TEST_F(LoadRunTest, OpenLoopSendsEveryArrivalWithinTheBound) {
  LoadOptions options{.rate = 400, .num_requests = 40, .max_new_tokens = 4, .token_rate = 1000};
  const LoadResult result = Run(options);
  EXPECT_EQ(result.num_done, 40);
  EXPECT_EQ(result.num_not_sent, 0);
  EXPECT_EQ(result.start_delay.count(), 40);
  EXPECT_EQ(result.lateness.count(), 160);
  EXPECT_GE(result.lateness.min(), 0);
}

TEST_F(LoadRunTest, OpenLoopCountsArrivalsBeyondTheBoundAndCancelsAtTheEnd) {
  LoadOptions options{.rate = 1000,
                      .max_in_flight = 3,
                      .num_requests = 20,
                      .duration_seconds = 0.2,
                      .grace_seconds = 0.05};
  UsePrompt(options, "forever");
  const LoadResult result = Run(options);
  EXPECT_EQ(result.num_started, 3);
  EXPECT_EQ(result.num_not_sent, 17);
  EXPECT_EQ(result.max_running, 3);
  EXPECT_THAT(result.errors, Contains(Pair("CANCELLED", 3)));
}

TEST_F(LoadRunTest, DurationEndsAClosedLoopAndGraceCancelsTheRest) {
  LoadOptions options{.num_clients = 2, .duration_seconds = 0.2, .grace_seconds = 0.1};
  UsePrompt(options, "forever");
  const LoadResult result = Run(options);
  EXPECT_EQ(result.num_started, 2);
  EXPECT_EQ(result.num_done, 0);
  EXPECT_THAT(result.errors, Contains(Pair("CANCELLED", 2)));
}

TEST_F(LoadRunTest, StopEndsARunThatWouldNotEnd) {
  for (const int num_clients : {1, 3}) {
    LoadOptions options{.num_clients = num_clients, .num_requests = 1000};
    UsePrompt(options, "forever");
    stop_after_ = 1;
    const LoadResult result = Run(options);
    EXPECT_EQ(result.num_started, num_clients);
    EXPECT_THAT(result.errors, Contains(Pair("CANCELLED", num_clients)));
  }
}

TEST_F(LoadRunTest, ErrorsAreCountedByCodeAndTheFirstIsTold) {
  LoadOptions options{.num_clients = 2, .num_requests = 6};
  UsePrompt(options, "busy");
  const LoadResult busy = Run(options);
  EXPECT_EQ(busy.num_done, 0);
  EXPECT_THAT(busy.errors, Contains(Pair("RESOURCE_EXHAUSTED", 6)));
  EXPECT_THAT(busy.first_error, testing::HasSubstr("try again in 1.5 s"));
  UsePrompt(options, "cut");
  EXPECT_THAT(Run(options).errors, Contains(Pair("UNFINISHED", 6)));
  UsePrompt(options, "forever");
  options.timeout_seconds = 0.1;
  EXPECT_THAT(Run(options).errors, Contains(Pair("DEADLINE_EXCEEDED", 6)));
}

TEST_F(LoadRunTest, ReportLinesAreJsonWithProvenance) {
  LoadOptions options{.num_requests = 5, .max_new_tokens = 4, .label = "caf\xE9"};  // not UTF-8
  const LoadResult result = Run(options);
  const auto run = nlohmann::json::parse(RunLine(result, 0), nullptr, false);
  EXPECT_EQ(run["kind"], "run");
  EXPECT_EQ(run["tokens"], 20);
  EXPECT_EQ(run["tokens_per_message"], 2);
  EXPECT_EQ(run["time_to_first_token_seconds"]["count"], 5);
  const std::string line =
      ResultLine(ReadProvenance(), options, v1::ModelInfo(), v1::ServerInfo(), {result, result});
  const auto parsed = nlohmann::json::parse(line, nullptr, false);
  for (const char* key : {"commit", "preset", "cpu", "cpu_flags", "threads", "seed", "config"}) {
    EXPECT_TRUE(parsed.contains(key)) << key;
  }
  EXPECT_EQ(parsed["repeats"], 2);
  EXPECT_EQ(parsed["done"], 10);
  EXPECT_EQ(parsed["metrics"]["tokens_per_message"]["median"], 2);
  EXPECT_EQ(parsed["metrics"]["tokens_per_message"]["mad"], 0);
}

TEST_F(LoadRunTest, AServerThatEndedMeanwhileIsNotMeasured) {
  char shell[] = "/bin/sh";
  char option[] = "-c";
  char script[] = "while :; do :; done";
  char* const arguments[] = {shell, option, script, nullptr};
  pid_t pid = 0;
  ASSERT_EQ(posix_spawn(&pid, shell, nullptr, nullptr, arguments, environ), 0);
  while (ProcessCpuSeconds(pid) < 0.05) usleep(1000);
  bool has_ended = false;
  on_progress_ = [&] {
    if (std::exchange(has_ended, true)) return;
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  };
  EXPECT_EQ(Run({.num_requests = 2, .max_new_tokens = 2, .server_pid = pid}).server_cpu_seconds, 0);
  EXPECT_TRUE(has_ended);
}

TEST(ProcessCpuSecondsTest, SeesThisProcessBothWays) {
  volatile double sum = 0;
  while (ProcessCpuSeconds() < 0.05) sum = sum + 1;
  EXPECT_NEAR(ProcessCpuSeconds(getpid()), ProcessCpuSeconds(), 0.1);
  EXPECT_EQ(ProcessCpuSeconds(0), 0);
}

}  // namespace
}  // namespace gatehouse
