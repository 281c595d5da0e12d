#include "client/load_run.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <fstream>
#include <limits>
#include <mutex>
#include <sstream>

#include "client/rpc_error.h"

namespace gatehouse {
namespace {

using std::chrono::steady_clock;

constexpr double kReportSeconds = 0.5;
constexpr double kNever = std::numeric_limits<double>::infinity();

struct Arrival {
  double seconds;  // since the run's start
  int num_tokens;
};

// Adds what one stream's messages say about the pace of its tokens.
void AddGaps(const std::vector<Arrival>& arrivals, LoadResult& result) {
  int64_t num_tokens = 0;
  for (size_t i = 0; i < arrivals.size(); ++i) {
    num_tokens += arrivals[i].num_tokens;
    if (i > 0) result.message_gap.Record(arrivals[i].seconds - arrivals[i - 1].seconds);
  }
  result.num_tokens += num_tokens;
  result.num_messages += static_cast<int64_t>(arrivals.size());
  if (arrivals.size() < 2) return;
  const double decode_seconds = arrivals.back().seconds - arrivals.front().seconds;
  result.inter_token.Record(decode_seconds / static_cast<double>(num_tokens - 1));
}

// Token i of a stream that the server paces is due at base + i / rate. `base` is the least that
// keeps every token from being early, so the stream's best token has lateness 0.
void AddLateness(const std::vector<Arrival>& arrivals, double rate, LatencyHistogram& lateness) {
  double base = kNever;
  double token_idx = 0;
  for (const Arrival& arrival : arrivals) {
    token_idx += arrival.num_tokens;  // its last token is the most in time
    base = std::min(base, arrival.seconds - (token_idx - 1) / rate);
  }
  token_idx = 0;
  for (const Arrival& arrival : arrivals) {
    for (int i = 0; i < arrival.num_tokens; ++i, ++token_idx) {
      lateness.Record(arrival.seconds - token_idx / rate - base);
    }
  }
}

}  // namespace

struct LoadRun::Shared {
  double Now() const { return std::chrono::duration<double>(steady_clock::now() - start).count(); }

  const steady_clock::time_point start = steady_clock::now();
  std::mutex mutex;
  std::condition_variable changed;
  // All below: guarded by mutex.
  LoadResult result;
  LoadProgress progress;
  bool stopped = false;
  double last_movement_seconds = 0;
  double last_end_seconds = 0;
  std::map<Stream*, std::shared_ptr<GenerateCall>> calls;  // of the running streams
};

class LoadRun::Stream final : public GenerateHandler {
 public:
  Stream(std::shared_ptr<Shared> shared, double due_seconds, double token_rate)
      : shared_(std::move(shared)), due_seconds_(due_seconds), token_rate_(token_rate) {}

  void OnEvent(const v1::GenerateResponse& event) override {
    const double now = shared_->Now();
    if (event.has_started()) num_prompt_tokens_ = event.started().prompt_tokens();
    if (event.has_finished()) finished_ = true;
    const int num_tokens = event.delta().tokens_size();
    if (num_tokens > 0) arrivals_.push_back({now, num_tokens});
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->progress.num_tokens += num_tokens;
    shared_->last_movement_seconds = now;
  }

  void OnDone(const absl::Status& status) override {
    const double now = shared_->Now();
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    LoadResult& result = shared_->result;
    done_ = true;
    shared_->calls.erase(this);
    shared_->last_movement_seconds = shared_->last_end_seconds = now;
    --shared_->progress.num_running;
    ++shared_->progress.num_ended;
    result.num_prompt_tokens += num_prompt_tokens_;
    if (!arrivals_.empty()) result.time_to_first_token.Record(arrivals_[0].seconds - due_seconds_);
    AddGaps(arrivals_, result);
    if (token_rate_ > 0) AddLateness(arrivals_, token_rate_, result.lateness);
    if (status.ok() && finished_) {
      ++result.num_done;
      result.request_duration.Record(now - due_seconds_);
    } else {
      ++shared_->progress.num_errors;
      ++result.errors[status.ok() ? "UNFINISHED" : CodeName(status.code())];
      if (result.first_error.empty()) {
        result.first_error =
            status.ok() ? "the stream ended without `finished`" : DescribeError(status);
      }
    }
    shared_->changed.notify_all();
  }

  bool done() const { return done_; }  // under the mutex

 private:
  const std::shared_ptr<Shared> shared_;
  const double due_seconds_;
  const double token_rate_;
  int num_prompt_tokens_ = 0;
  bool finished_ = false;
  bool done_ = false;
  std::vector<Arrival> arrivals_;
};

LoadRun::LoadRun(const std::vector<std::unique_ptr<GatehouseClient>>& clients,
                 const LoadOptions& options, const RequestPlan& plan)
    : clients_(clients), options_(options), plan_(plan), shared_(std::make_shared<Shared>()) {}

LoadRun::~LoadRun() = default;

void LoadRun::Stop() {
  std::map<Stream*, std::shared_ptr<GenerateCall>> calls;
  {
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->stopped = true;
    calls = shared_->calls;
    shared_->changed.notify_all();
  }
  for (const auto& [stream, call] : calls) call->Cancel();
}

void LoadRun::StartOne(uint64_t request_idx, double due_seconds) {
  const auto stream = std::make_shared<Stream>(shared_, due_seconds, options_.token_rate);
  const v1::GenerateRequest request = plan_.Request(request_idx);
  {
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    LoadResult& result = shared_->result;
    ++result.num_started;
    result.start_delay.Record(shared_->Now() - due_seconds);
    result.max_running = std::max(result.max_running, ++shared_->progress.num_running);
  }
  const CallOptions call_options{
      .timeout = std::chrono::milliseconds(static_cast<int64_t>(options_.timeout_seconds * 1000))};
  const std::shared_ptr<GenerateCall> call =
      clients_[request_idx % clients_.size()]->StartGenerate(request, call_options, stream);
  bool cancel = false;
  {
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    if (!stream->done()) shared_->calls[stream.get()] = call;
    cancel = shared_->stopped;  // Stop may have looked before the call was there
  }
  if (cancel) call->Cancel();
}

void LoadRun::ReportProgress() {
  LoadProgress progress;
  {
    const std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->progress.seconds = shared_->Now();
    progress = shared_->progress;
  }
  if (report_ != nullptr) report_(progress);
}

bool LoadRun::WaitForFewerThan(int max_running, double until_seconds) {
  while (true) {
    const double now = shared_->Now();
    if (now >= next_report_seconds_) {
      ReportProgress();
      next_report_seconds_ = now + kReportSeconds;
    }
    bool stalled = false;
    {
      std::unique_lock<std::mutex> lock(shared_->mutex);
      if (shared_->progress.num_running < max_running) return true;
      if (now >= until_seconds) return false;
      stalled = shared_->last_movement_seconds + options_.grace_seconds < now && !shared_->stopped;
      if (!stalled) {
        const double wait_seconds = std::min(until_seconds, next_report_seconds_) - now;
        shared_->changed.wait_for(lock, std::chrono::duration<double>(wait_seconds));
      }
    }
    if (stalled) Stop();
  }
}

void LoadRun::RunClosedLoop(uint64_t request_idx) {
  const double end_seconds = options_.duration_seconds > 0 ? options_.duration_seconds : kNever;
  for (int64_t i = 0; options_.num_requests == 0 || i < options_.num_requests; ++i) {
    if (!WaitForFewerThan(options_.num_clients, end_seconds)) return;
    {
      const std::lock_guard<std::mutex> lock(shared_->mutex);
      if (shared_->stopped) return;  // what Stop cancelled has made room
    }
    const double now = shared_->Now();
    if (now >= end_seconds) return;
    StartOne(request_idx++, now);
  }
}

void LoadRun::RunOpenLoop(uint64_t request_idx) {
  PoissonArrivals arrivals(options_.rate, options_.seed);
  for (int64_t i = 0; options_.num_requests == 0 || i < options_.num_requests; ++i) {
    const double due_seconds = arrivals.NextSeconds();
    if (options_.duration_seconds > 0 && due_seconds >= options_.duration_seconds) return;
    {
      // Waits for the moment or Stop alone: ends of streams do not matter to an open loop.
      std::unique_lock<std::mutex> lock(shared_->mutex);
      while (!shared_->stopped && shared_->Now() < due_seconds) {
        const double until = std::min(due_seconds, std::max(next_report_seconds_, shared_->Now()));
        shared_->changed.wait_for(lock, std::chrono::duration<double>(until - shared_->Now()));
        if (shared_->Now() < next_report_seconds_) continue;
        lock.unlock();
        ReportProgress();
        next_report_seconds_ = shared_->Now() + kReportSeconds;
        lock.lock();
      }
      if (shared_->stopped) return;
      shared_->last_movement_seconds = std::max(shared_->last_movement_seconds, due_seconds);
      if (shared_->progress.num_running >= options_.max_in_flight) {
        ++shared_->result.num_not_sent;
        continue;
      }
    }
    StartOne(request_idx++, due_seconds);
  }
}

LoadResult LoadRun::Run(uint64_t first_request_idx,
                        const std::function<void(const LoadProgress&)>& report) {
  report_ = report;
  const double client_cpu = ProcessCpuSeconds();
  const double server_cpu = ProcessCpuSeconds(options_.server_pid);
  if (options_.open_loop()) {
    RunOpenLoop(first_request_idx);
  } else {
    RunClosedLoop(first_request_idx);
  }
  const double end_seconds =
      options_.duration_seconds > 0 ? options_.duration_seconds + options_.grace_seconds : kNever;
  if (!WaitForFewerThan(1, end_seconds)) {
    Stop();
    WaitForFewerThan(1, kNever);  // a cancelled call always ends: gRPC sees to it on this side
  }
  ReportProgress();
  const std::lock_guard<std::mutex> lock(shared_->mutex);
  LoadResult result = shared_->result;
  result.wall_seconds = shared_->last_end_seconds;
  result.client_cpu_seconds = ProcessCpuSeconds() - client_cpu;
  // A server that ended meanwhile reads as 0: no measurement, not a negative one.
  result.server_cpu_seconds = std::max(0.0, ProcessCpuSeconds(options_.server_pid) - server_cpu);
  return result;
}

double ProcessCpuSeconds() {
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double ProcessCpuSeconds(int64_t pid) {
  if (pid <= 0) return 0;
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  std::getline(file, line);
  // The second field is the program's name in brackets and may hold anything, spaces too.
  const size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(line.substr(name_end + 1));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;  // state to cmajflt
  double user_ticks = 0;
  double system_ticks = 0;
  fields >> user_ticks >> system_ticks;
  return (user_ticks + system_ticks) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

}  // namespace gatehouse
