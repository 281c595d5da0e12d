// The cost of serving alone: a real engine and server over real gRPC on loopback, with a back end
// that computes nothing, and the clients in the same process. Streams start a new request when one
// ends. docs/bench/METHOD.md has the formulas.
//
// usage: serving_bench MODEL_DIR [--streams 32] [--rate 500] [--seconds 5] [--connections 1]
//   --rate 0: as fast as it goes
// Prints one JSON line.
#include <grpcpp/grpcpp.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/str_format.h"
#include "engine/engine.h"
#include "gatehouse/v1/inference.grpc.pb.h"
#include "kernels/base/check.h"
#include "kernels/base/mutex.h"
#include "server/gatehouse_server.h"
#include "tests/testing/null_backend.h"

namespace gatehouse::bench {
namespace {

struct Options {
  std::string model_dir;
  int num_streams = 32;
  double rate = 500;  // tokens a second of one stream
  double seconds = 5;
  int num_connections = 1;
};

// One request: the engine's side and the client's, each written by one thread at a time.
struct Trace {
  std::vector<size_t> step_of_token;
  std::vector<TimePoint> receive_times;  // of each token
  int64_t num_messages = 0;              // that carry a delta
};

// Knows which step made which token, and when that step ended.
class Stopwatch {
 public:
  explicit Stopwatch(StepObserver& next) : observer_(*this, next) {}

  StepObserver& observer() { return observer_; }
  std::shared_ptr<Trace> NewTrace(const std::string& id) {
    const MutexLock lock(mutex_);
    return traces_[id] = std::make_shared<Trace>();
  }
  std::shared_ptr<Trace> Find(const std::string& id) {
    const MutexLock lock(mutex_);
    return traces_.at(id);
  }
  size_t current_step() const { return step_ends_.size(); }  // engine loop

  // After the run.
  TimePoint step_end(size_t step) const { return step_ends_.at(step); }
  const std::map<std::string, std::shared_ptr<Trace>>& traces() const { return traces_; }

 private:
  class Observer final : public StepObserver {
   public:
    Observer(Stopwatch& stopwatch, StepObserver& next) : stopwatch_(stopwatch), next_(next) {}
    void OnStep(const StepStats& stats) override {
      stopwatch_.step_ends_.push_back(stats.time);
      next_.OnStep(stats);
    }
    void OnToken(double seconds) override { next_.OnToken(seconds); }
    void OnFirstToken(double seconds) override { next_.OnFirstToken(seconds); }
    void OnRequestEnd(const RequestStats& stats) override { next_.OnRequestEnd(stats); }

   private:
    Stopwatch& stopwatch_;
    StepObserver& next_;
  };

  Observer observer_;
  std::vector<TimePoint> step_ends_;
  Mutex mutex_;
  std::map<std::string, std::shared_ptr<Trace>> traces_;
};

class TracingSink final : public TokenSink {
 public:
  TracingSink(std::shared_ptr<TokenSink> next, std::shared_ptr<Trace> trace,
              const Stopwatch& stopwatch)
      : next_(std::move(next)), trace_(std::move(trace)), stopwatch_(stopwatch) {}
  bool Push(SinkEvent event) override {
    if (const auto* delta = std::get_if<DeltaEvent>(&event)) {
      trace_->step_of_token.insert(trace_->step_of_token.end(), delta->tokens.size(),
                                   stopwatch_.current_step());
    }
    return next_->Push(std::move(event));
  }
  void Close(absl::Status status) override { next_->Close(std::move(status)); }

 private:
  const std::shared_ptr<TokenSink> next_;
  const std::shared_ptr<Trace> trace_;
  const Stopwatch& stopwatch_;
};

// The engine, with a stopwatch between it and the server.
class TracedEngine final : public Engine {
 public:
  TracedEngine(Engine& engine, Stopwatch& stopwatch) : engine_(engine), stopwatch_(stopwatch) {}
  absl::StatusOr<Ticket> Submit(Request request, std::shared_ptr<TokenSink> sink) override {
    auto traced =
        std::make_shared<TracingSink>(std::move(sink), stopwatch_.Find(request.id), stopwatch_);
    return engine_.Submit(std::move(request), std::move(traced));
  }
  absl::Status CheckQueueOpen(const Tenant& tenant) const override {
    return engine_.CheckQueueOpen(tenant);
  }
  void Cancel(Ticket ticket) override { engine_.Cancel(ticket); }
  void Drain(TimePoint deadline) override { engine_.Drain(deadline); }
  const Tokenizer& tokenizer() const override { return engine_.tokenizer(); }
  const ChatTemplate* chat_template() const override { return engine_.chat_template(); }
  const ModelDescription& model() const override { return engine_.model(); }
  const MemoryPlan& memory_plan() const override { return engine_.memory_plan(); }
  const RequestLimits& limits() const override { return engine_.limits(); }
  EngineStatus Status() const override { return engine_.Status(); }
  std::vector<ExpertPlacement> Placements() const override { return engine_.Placements(); }
  absl::Status Rebalance(const RebalanceOptions& options) override {
    return engine_.Rebalance(options);
  }
  RebalanceStatus Rebalancing() const override { return engine_.Rebalancing(); }
  absl::Status Inject(const Fault& fault) override { return engine_.Inject(fault); }
  Duration RetryAfter(const std::string& tenant) const override {
    return engine_.RetryAfter(tenant);
  }

 private:
  Engine& engine_;
  Stopwatch& stopwatch_;
};

// One stream: requests one after the other until told to stop.
class StreamClient final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  StreamClient(int stream, v1::Inference::Stub& stub, Stopwatch& stopwatch, int max_new_tokens)
      : stream_(stream), stub_(stub), stopwatch_(stopwatch) {
    request_.mutable_tokens()->add_ids(5);
    request_.mutable_stop()->set_max_new_tokens(max_new_tokens);
    request_.mutable_stop()->set_ignore_eos(true);
  }
  void Begin() {
    request_.set_request_id(absl::StrFormat("%d-%d", stream_, num_requests_++));
    trace_ = stopwatch_.NewTrace(request_.request_id());
    context_ = std::make_unique<grpc::ClientContext>();
    stub_.async()->Generate(context_.get(), &request_, this);
    StartRead(&response_);
    StartCall();
  }
  void Stop() { stopping_ = true; }
  void Join() {
    const MutexLock lock(mutex_);
    while (!ended_) changed_.Wait(mutex_);
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (response_.has_delta()) {
      const TimePoint now = std::chrono::steady_clock::now();
      trace_->receive_times.insert(trace_->receive_times.end(),
                                   static_cast<size_t>(response_.delta().tokens_size()), now);
      ++trace_->num_messages;
    }
    StartRead(&response_);
  }
  void OnDone(const grpc::Status& status) override {
    GATEHOUSE_CHECK(status.ok()) << status.error_message();
    if (!stopping_) return Begin();
    const MutexLock lock(mutex_);
    ended_ = true;
    changed_.NotifyAll();
  }

 private:
  const int stream_;
  v1::Inference::Stub& stub_;
  Stopwatch& stopwatch_;
  v1::GenerateRequest request_;
  v1::GenerateResponse response_;
  std::unique_ptr<grpc::ClientContext> context_;
  std::shared_ptr<Trace> trace_;
  int num_requests_ = 0;
  std::atomic<bool> stopping_ = false;
  Mutex mutex_;
  CondVar changed_;
  bool ended_ GATEHOUSE_GUARDED_BY(mutex_) = false;
};

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

double Percentile(const std::vector<double>& sorted, double share) {
  if (sorted.empty()) return 0;
  const auto rank = static_cast<size_t>(share * static_cast<double>(sorted.size()));
  return sorted[std::min(rank, sorted.size() - 1)];
}

nlohmann::json Summarise(const Stopwatch& stopwatch, double wall_seconds, double cpu_seconds) {
  std::vector<double> delivery_ms;
  int64_t num_messages = 0;
  for (const auto& [id, trace] : stopwatch.traces()) {
    num_messages += trace->num_messages;
    GATEHOUSE_CHECK(trace->receive_times.size() == trace->step_of_token.size()) << id;
    for (size_t i = 0; i < trace->receive_times.size(); ++i) {
      const TimePoint made = stopwatch.step_end(trace->step_of_token[i]);
      delivery_ms.push_back(1e3 * ToSeconds(trace->receive_times[i] - made));
    }
  }
  std::sort(delivery_ms.begin(), delivery_ms.end());
  const auto num_tokens = static_cast<double>(delivery_ms.size());
  return {{"tokens", delivery_ms.size()},
          {"requests", stopwatch.traces().size()},
          {"tokens_per_second", num_tokens / wall_seconds},
          {"messages_per_second", static_cast<double>(num_messages) / wall_seconds},
          {"tokens_per_message", num_tokens / static_cast<double>(num_messages)},
          {"cpu_us_per_token", 1e6 * cpu_seconds / num_tokens},
          {"delivery_ms_p50", Percentile(delivery_ms, 0.5)},
          {"delivery_ms_p99", Percentile(delivery_ms, 0.99)},
          {"delivery_ms_max", delivery_ms.empty() ? 0 : delivery_ms.back()}};
}

std::vector<std::unique_ptr<v1::Inference::Stub>> Connect(const std::string& address,
                                                          int num_connections) {
  std::vector<std::unique_ptr<v1::Inference::Stub>> stubs;
  for (int i = 0; i < num_connections; ++i) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
    stubs.push_back(v1::Inference::NewStub(
        grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments)));
  }
  return stubs;
}

int Run(const Options& options) {
  const SteadyClock clock;
  Logger logger(LogFormat::kText, LogLevel::kError);
  PrometheusMetrics metrics({.version = "bench", .backend = "null", .isa = "none"}, std::nullopt);
  Stopwatch stopwatch(metrics);
  ServerConfig config;
  config.engine.model.model_dir = options.model_dir;
  config.engine.scheduler.max_sequences = options.num_streams;
  config.listen = config.admin.listen = config.metrics_listen = "127.0.0.1:0";
  const Duration step(options.rate > 0 ? static_cast<int64_t>(1e9 / options.rate) : 0);
  Backends backends;
  backends.push_back(std::make_unique<NullBackend>(NullBackendOptions{
      .script = {300, 301, 302, 303, 304, 305, 306, 307}, .step_duration = step}));
  auto engine = Engine::Create(config.engine, std::move(backends), clock, stopwatch.observer());
  GATEHOUSE_CHECK(engine.ok()) << engine.status();
  metrics.SetModel((*engine)->model());
  TracedEngine traced(**engine, stopwatch);
  auto server =
      GatehouseServer::Start(config, {.version = "bench"}, {metrics, logger, clock, [] {}});
  GATEHOUSE_CHECK(server.ok()) << server.status();
  GATEHOUSE_CHECK((*server)->Serve(traced).ok());

  const auto stubs = Connect((*server)->listen_address(), options.num_connections);
  std::vector<std::unique_ptr<StreamClient>> clients;
  for (int i = 0; i < options.num_streams; ++i) {
    clients.push_back(
        std::make_unique<StreamClient>(i, *stubs[static_cast<size_t>(i % options.num_connections)],
                                       stopwatch, (*engine)->limits().max_context - 1));
  }
  const TimePoint start = clock.Now();
  const double cpu_start = CpuSeconds();
  for (const auto& client : clients) client->Begin();
  std::this_thread::sleep_for(std::chrono::duration<double>(options.seconds));
  for (const auto& client : clients) client->Stop();
  for (const auto& client : clients) client->Join();
  const double wall_seconds = ToSeconds(clock.Now() - start);
  const double cpu_seconds = CpuSeconds() - cpu_start;
  (*server)->Drain();

  nlohmann::json line = {{"bench", "serving"},
                         {"streams", options.num_streams},
                         {"rate", options.rate},
                         {"connections", options.num_connections}};
  line.update(Summarise(stopwatch, wall_seconds, cpu_seconds));
  std::cout << line.dump() << std::endl;
  return 0;
}

}  // namespace
}  // namespace gatehouse::bench

int main(int argc, char** argv) {
  gatehouse::bench::Options options;
  CLI::App app("Serving without computing");
  app.add_option("model", options.model_dir, "directory of a model")->required();
  app.add_option("--streams", options.num_streams)->check(CLI::Range(1, 4096));
  app.add_option("--rate", options.rate, "tokens a second of one stream; 0: as fast as it goes");
  app.add_option("--seconds", options.seconds);
  app.add_option("--connections", options.num_connections)->check(CLI::Range(1, 4096));
  CLI11_PARSE(app, argc, argv);
  return gatehouse::bench::Run(options);
}
