// Drives one load run: starts requests as the plan says, follows every stream, adds up. The streams
// live on gRPC's callback threads; one thread of the caller starts them and watches the clock.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "client/gatehouse_client.h"
#include "client/load_options.h"
#include "client/load_plan.h"
#include "client/statistics.h"

namespace gatehouse {

// docs/bench/METHOD.md has the formulas.
struct LoadResult {
  int64_t num_started = 0;
  int64_t num_done = 0;                   // ended with `finished` and OK
  int64_t num_not_sent = 0;               // open loop: came while max_in_flight were running
  std::map<std::string, int64_t> errors;  // by status code name
  std::string first_error;                // its text

  int64_t num_prompt_tokens = 0;  // as the server counts them
  int64_t num_tokens = 0;         // received, of all requests
  int64_t num_messages = 0;       // that carried tokens
  double wall_seconds = 0;        // first start to last end
  double client_cpu_seconds = 0;  // this process, user and system
  double server_cpu_seconds = 0;  // of server_pid; 0: none given, or it ended meanwhile

  LatencyHistogram time_to_first_token;  // from when the request was due
  LatencyHistogram inter_token;          // of a request: (last - first delta) / (tokens - 1)
  LatencyHistogram message_gap;          // gaps between messages that carry tokens
  LatencyHistogram request_duration;     // of done requests, from when they were due
  LatencyHistogram start_delay;          // started later than due (the load generator's own fault)
  LatencyHistogram lateness;             // with token_rate: behind the pace of the stream
  int max_running = 0;
};

// Told about twice a second, and at the end.
struct LoadProgress {
  int64_t num_ended = 0;
  int64_t num_errors = 0;
  int64_t num_tokens = 0;
  int num_running = 0;
  double seconds = 0;
};

class LoadRun {
 public:
  // All must outlive Run. `clients` has at least one; requests take them in turn.
  LoadRun(const std::vector<std::unique_ptr<GatehouseClient>>& clients, const LoadOptions& options,
          const RequestPlan& plan);
  ~LoadRun();

  // Sends requests from number `first_request_idx` on, until num_requests or duration_seconds of
  // the options are reached; returns when every stream has ended. Cancels what runs grace_seconds
  // after the duration, and everything when no stream has moved for grace_seconds. Call once.
  LoadResult Run(uint64_t first_request_idx,
                 const std::function<void(const LoadProgress&)>& report);

  // Any thread: starts no more, cancels what runs; Run then returns soon.
  void Stop();

 private:
  struct Shared;
  class Stream;

  void StartOne(uint64_t request_idx, double due_seconds);
  void RunClosedLoop(uint64_t request_idx);
  void RunOpenLoop(uint64_t request_idx);
  // Waits until fewer than `max_running` streams run (true), or until `until_seconds` (false);
  // reports progress meanwhile.
  bool WaitForFewerThan(int max_running, double until_seconds);
  void ReportProgress();

  const std::vector<std::unique_ptr<GatehouseClient>>& clients_;
  const LoadOptions& options_;
  const RequestPlan& plan_;
  const std::shared_ptr<Shared> shared_;  // with the streams
  std::function<void(const LoadProgress&)> report_;
  double next_report_seconds_ = 0;
};

// User and system time; 0 if it cannot be known. Of another process from /proc, in steps of 10 ms.
double ProcessCpuSeconds();
double ProcessCpuSeconds(int64_t pid);

}  // namespace gatehouse
