// `gatehouse-loadgen`: load for a server. Asks what it serves, warms up, repeats the run, reports.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_format.h"
#include "client/load_options.h"
#include "client/load_report.h"
#include "client/load_run.h"
#include "client/rpc_error.h"
#include "client/terminal.h"

namespace gatehouse {
namespace {

using Clients = std::vector<std::unique_ptr<GatehouseClient>>;

void Say(const std::string& text) { WriteAll(STDERR_FILENO, text).IgnoreError(); }

int Fail(int exit_code, const std::string& text) {
  Say(absl::StrFormat("gatehouse-loadgen: %s\n", text));
  return exit_code;
}

// A bar that is drawn over on a terminal; a line every ten seconds elsewhere.
class ProgressDisplay {
 public:
  explicit ProgressDisplay(const LoadOptions& options) : options_(options) {}
  void Show(const LoadProgress& progress) {
    const std::string text = DescribeProgress(progress, options_);
    if (terminal_) {
      Say("\r\x1b[K" + text);
    } else if (progress.seconds >= next_line_seconds_) {
      next_line_seconds_ = progress.seconds + kLineSeconds;
      Say(text + "\n");
    }
  }
  void Clear() const {
    if (terminal_) Say("\r\x1b[K");
  }

 private:
  static constexpr double kLineSeconds = 10;
  const LoadOptions& options_;
  const bool terminal_ = isatty(STDERR_FILENO) != 0;
  double next_line_seconds_ = kLineSeconds;
};

// One repeat, or the warm-up; Ctrl-C stops it.
LoadResult RunOnce(const Clients& clients, const LoadOptions& options, const RequestPlan& plan,
                   uint64_t first_request_idx, InterruptWatcher& watcher) {
  LoadRun run(clients, options, plan);
  ProgressDisplay display(options);
  watcher.OnInterrupt([&run] { run.Stop(); });
  LoadResult result = run.Run(first_request_idx, [&](const LoadProgress& p) { display.Show(p); });
  watcher.OnInterrupt([] {});  // between runs an interrupt is only remembered
  display.Clear();
  return result;
}

// The warm-up takes requests that no repeat sends, so that no cache knows them.
constexpr uint64_t kWarmupRequestIdx = uint64_t{1} << 40;

int RunAll(const Clients& clients, const LoadOptions& options, int output,
           InterruptWatcher& watcher) {
  const auto model = clients[0]->GetModelInfo({}, {});
  if (!model.ok()) {
    return Fail(
        1, DescribeCallError(model.status(), options.connection.target, clients[0]->reachable()));
  }
  const auto server = clients[0]->GetServerInfo({});
  if (!server.ok()) return Fail(1, DescribeError(server.status()));
  const absl::StatusOr<RequestPlan> plan = RequestPlan::Create(options, *model);
  if (!plan.ok()) return Fail(2, std::string(plan.status().message()));

  if (options.num_warmup > 0) {
    LoadOptions warmup = options;
    warmup.num_requests = options.num_warmup;
    warmup.duration_seconds = 0;
    warmup.rate = 0;
    RunOnce(clients, warmup, *plan, kWarmupRequestIdx, watcher);
  }
  std::vector<LoadResult> results;
  uint64_t request_idx = 0;
  bool any_done = false;
  for (int i = 0; i < options.num_repeats && !watcher.interrupted(); ++i) {
    results.push_back(RunOnce(clients, options, *plan, request_idx, watcher));
    request_idx += static_cast<uint64_t>(results.back().num_started);
    any_done = any_done || results.back().num_done > 0;
    Say(DescribeResult(results.back()));
    if (!WriteAll(output, RunLine(results.back(), i)).ok()) return 1;
  }
  const std::string line = ResultLine(ReadProvenance(), options, *model, *server, results);
  if (!WriteAll(output, line).ok()) return 1;
  if (watcher.interrupted()) return Fail(130, "interrupted: the numbers are of a part of the run");
  return any_done ? 0 : Fail(1, "no request succeeded");
}

int Main(int argc, char** argv) {
  LoadOptions options;
  const ParseOutcome parsed = ParseLoadOptions(argc, argv, options);
  if (!parsed.run) {
    WriteAll(parsed.exit_code == 0 ? STDOUT_FILENO : STDERR_FILENO, parsed.output).IgnoreError();
    return parsed.exit_code;
  }
  InterruptWatcher watcher;  // before gRPC starts its threads
  int output = STDOUT_FILENO;
  if (!options.output_file.empty()) {
    output = open(options.output_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (output < 0) {
      return Fail(
          2, absl::StrFormat("cannot write %s: %s", options.output_file, std::strerror(errno)));
    }
  }
  absl::StatusOr<ClientOptions> connection = ToClientOptions(options.connection);
  if (!connection.ok()) return Fail(2, std::string(connection.status().message()));
  Clients clients;
  for (int i = 0; i < options.num_connections; ++i) {
    connection->connection_idx = i;
    auto client = GatehouseClient::Connect(*connection);
    if (!client.ok()) return Fail(2, std::string(client.status().message()));
    clients.push_back(*std::move(client));
  }
  return RunAll(clients, options, output, watcher);
}

}  // namespace
}  // namespace gatehouse

int main(int argc, char** argv) { return gatehouse::Main(argc, argv); }
