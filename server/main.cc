// gatehouse-server. The only place that knows every part: builds the object graph top to bottom,
// waits for SIGTERM or SIGINT, drains; SIGHUP reads files again. Exit codes: 0 drained, 1 run-time
// failure, 2 bad flags or configuration, 3 the model cannot be loaded.
#include <pthread.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "engine/engine.h"
#include "kernels/backend.h"
#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "kernels/base/mutex.h"
#include "kernels/base/status_macros.h"
#include "proto/message_yaml.h"
#include "server/cpu_count.h"
#include "server/deployment.h"
#include "server/gatehouse_server.h"
#include "server/prometheus_metrics.h"
#include "server/rank_worker.h"
#include "server/routing_policy_convert.h"
#include "server/server_config.h"
#include "server/small_file.h"

namespace gatehouse {
namespace {

enum ExitCode { kDrained = 0, kFailed = 1, kBadUsage = 2, kBadModel = 3 };

// Signals become events for an ordinary thread. Make it before any other thread, so that all of
// them inherit the blocked mask.
class SignalThread {
 public:
  enum class Event { kStop, kReload };

  SignalThread() {
    sigemptyset(&signals_);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP, kStopSignal}) sigaddset(&signals_, signal);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
    thread_ = std::thread([this] { Listen(); });
  }
  ~SignalThread() {
    {
      const MutexLock lock(mutex_);
      stopping_ = true;
    }
    pthread_kill(thread_.native_handle(), kStopSignal);
    thread_.join();
  }

  // Until now SIGTERM ends the process at once: nothing was served yet. From now on the first one
  // is an event, and a second one, of somebody who will not wait for the drain, ends the process.
  // The first one also calls `on_terminate`, on the thread of signals, until Disarm: what drains
  // already may have to hurry.
  void Arm(std::function<void()> on_terminate) {
    const MutexLock lock(mutex_);
    armed_ = true;
    on_terminate_ = std::move(on_terminate);
  }
  void Disarm() {
    const MutexLock lock(mutex_);
    on_terminate_ = nullptr;
  }
  Event Wait() {
    const MutexLock lock(mutex_);
    while (!stop_requested_ && !reload_requested_) changed_.Wait(mutex_);
    if (stop_requested_) return Event::kStop;
    reload_requested_ = false;
    return Event::kReload;
  }
  // As a first SIGTERM. Any thread.
  void RequestStop() {
    const MutexLock lock(mutex_);
    stop_requested_ = true;
    changed_.NotifyAll();
  }

 private:
  // Wakes the thread at its end. From outside the process it says nothing.
  static constexpr int kStopSignal = SIGUSR2;

  void Listen() {
    int signal = 0;
    while (sigwait(&signals_, &signal) == 0) {
      const MutexLock lock(mutex_);
      if (stopping_) return;
      if (signal == kStopSignal) continue;
      if (signal == SIGHUP) {
        reload_requested_ = true;
      } else {
        if (!armed_) std::_Exit(kDrained);
        if (std::exchange(terminated_, true)) std::_Exit(kFailed);
        if (on_terminate_ != nullptr) on_terminate_();
        stop_requested_ = true;
      }
      changed_.NotifyAll();
    }
  }

  sigset_t signals_;
  Mutex mutex_;
  CondVar changed_;
  std::function<void()> on_terminate_ GATEHOUSE_GUARDED_BY(mutex_);
  bool armed_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  bool terminated_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  bool stop_requested_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  bool reload_requested_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  bool stopping_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

int Fail(const absl::Status& status, ExitCode code) {
  std::fprintf(stderr, "gatehouse-server: %s\n", std::string(status.message()).c_str());
  return code;
}

absl::Status ReadRoutingSecret(ServerConfig& config) {
  const std::string& file = config.routing_secret_file;
  if (file.empty()) return absl::OkStatus();
  constexpr size_t kMaxBytes = 64;
  GATEHOUSE_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(file, kMaxBytes));
  const std::string hex = std::string(absl::StripAsciiWhitespace(text));
  std::array<uint64_t, 2> words{};
  if (hex.size() != 32 || !absl::SimpleHexAtoi(hex.substr(0, 16), &words[0]) ||
      !absl::SimpleHexAtoi(hex.substr(16), &words[1])) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--routing-secret-file %s: expected 32 hexadecimal digits", file));
  }
  config.engine.routing.secret = words;
  return absl::OkStatus();
}

absl::StatusOr<Backends> ChooseBackends(const BackendChoice& choice, int num_threads,
                                        int num_ranks) {
  const std::string name =
      choice.name == "auto" ? std::string(CompiledBackends().front()) : choice.name;
  return MakeBackends(name, {.num_threads = num_threads, .isa = choice.isa}, num_ranks);
}

void LogPackedCache(const Logger& logger, const PackedCacheReport& report) {
  if (report.file.empty()) return;
  if (report.not_read.empty()) {
    logger.Log(LogLevel::kInfo, "packed weights read", {{"file", report.file}});
  } else if (report.not_saved.empty()) {
    logger.Log(LogLevel::kInfo, "packed weights written",
               {{"file", report.file}, {"not_read", report.not_read}});
  } else {
    logger.Log(
        LogLevel::kWarning, "packed weights not written",
        {{"file", report.file}, {"not_read", report.not_read}, {"problem", report.not_saved}});
  }
}

void LogModel(const Logger& logger, const Engine& engine, double load_seconds) {
  const ModelDescription& model = engine.model();
  for (const std::string& warning : model.warnings) {
    logger.Log(LogLevel::kWarning, "model", {{"warning", warning}});
  }
  LogPackedCache(logger, model.packed_cache);
  const MemoryPlan& plan = engine.memory_plan();
  logger.Log(LogLevel::kInfo, "loaded",
             {{"model", model.name},
              {"family", model.family},
              {"parameters", std::to_string(model.num_parameters)},
              {"expert_weights", model.expert_weight_format},
              {"dense_weights", model.dense_weight_format},
              {"context", std::to_string(model.max_context)},
              {"weight_bytes", std::to_string(plan.expert_weight_bytes + plan.dense_weight_bytes)},
              {"kv_cache_bytes", std::to_string(plan.kv_cache_bytes)},
              {"seconds", absl::StrFormat("%.3f", load_seconds)}});
}

void LogLimits(const Logger& logger, const MachineLimits& limits, double seconds) {
  const auto billions = [](double rate) { return absl::StrFormat("%.1f", rate * 1e-9); };
  logger.Log(LogLevel::kInfo, "machine limits",
             {{"read_gb_per_second", billions(limits.read_bytes_per_second)},
              {"float_gop_per_second", billions(limits.float_operations_per_second)},
              {"integer_gop_per_second", billions(limits.integer_operations_per_second)},
              {"seconds", absl::StrFormat("%.3f", seconds)}});
}

int FailToLoad(const absl::Status& status) {
  const bool usage = status.code() == absl::StatusCode::kInvalidArgument;
  return Fail(status, usage ? kBadUsage : kBadModel);
}

// The model's own program: load, plan, print. Opens no port.
int Check(const ServerConfig& config, Backends backends, const Clock& clock,
          StepObserver& observer) {
  const auto engine = Engine::Create(config.engine, std::move(backends), clock, observer);
  if (!engine.ok()) return FailToLoad(engine.status());
  absl::StatusOr<v1::RoutingPolicy> routing = LoadRoutingPolicy(config);
  if (!routing.ok()) return Fail(routing.status(), kBadUsage);
  const absl::Status usable =
      ToRoutingTable(FactsOf((*engine)->model(), config.engine), *routing).status();
  if (!usable.ok()) return Fail(usable, kBadUsage);
  std::printf("%s", (*engine)->memory_plan().ToString().c_str());
  if (!config.routing_config.empty()) {
    std::printf("routing policy in force:\n%s", MessageToYaml(*routing).c_str());
  }
  return kDrained;
}

void LogServing(const Logger& logger, const GatehouseServer& server, const ServerFacts& facts,
                double seconds) {
  logger.Log(LogLevel::kInfo, "serving",
             {{"listen", server.listen_address()},
              {"admin", server.admin_address()},
              {"metrics", server.metrics_address()},
              {"backend", facts.backend},
              {"isa", facts.isa},
              {"threads", std::to_string(facts.num_threads)},
              {"seconds", absl::StrFormat("%.3f", seconds)}});
}

int FailToListen(const Logger& logger, const absl::Status& status) {
  logger.Flush();
  const bool taken = absl::IsUnavailable(status);
  return Fail(status, taken ? kFailed : kBadUsage);
}

// Null: no ranks in other processes.
absl::StatusOr<std::unique_ptr<Deployment>> MaybeDeployment(const ServerConfig& config,
                                                            const Logger& logger) {
  if (config.deployment.num_workers == 0) return nullptr;
  return Deployment::Open(config, GATEHOUSE_VERSION, logger);
}

// A rank of another server's deployment (--role worker).
int Work(const ServerConfig& config, SignalThread& signals) {
  Logger logger(config.log_format, config.log_level);
  const int num_threads =
      config.backend.num_threads > 0 ? config.backend.num_threads : UsableCpus();
  absl::StatusOr<std::unique_ptr<RankWorker>> worker = RankWorker::Create(
      {.config = config, .version = GATEHOUSE_VERSION, .logger = logger, .make_backends = [&] {
         return ChooseBackends(config.backend, num_threads, /*num_ranks=*/1);
       }});
  if (!worker.ok()) return Fail(worker.status(), kBadUsage);
  signals.Arm([&worker] { (*worker)->Stop(); });
  const absl::Status ended = (*worker)->Run();
  signals.Disarm();
  worker->reset();
  logger.Log(ended.ok() ? LogLevel::kInfo : LogLevel::kError, "stopped",
             {{"reason", std::string(ended.message())}});
  logger.Flush();
  if (ended.ok()) return kDrained;
  if (absl::IsUnavailable(ended)) {
    return Fail(absl::UnavailableError(absl::StrFormat("the first rank at %s is gone: %s",
                                                       config.deployment.join, ended.message())),
                kFailed);
  }
  const bool usage = absl::IsInvalidArgument(ended) || absl::IsUnauthenticated(ended);
  return Fail(ended, usage ? kBadUsage : absl::IsInternal(ended) ? kFailed : kBadModel);
}

int Serve(const ServerConfig& config, SignalThread& signals) {
  const SteadyClock clock;
  Logger logger(config.log_format, config.log_level);
  const TimePoint start = clock.Now();

  const int num_threads =
      config.backend.num_threads > 0 ? config.backend.num_threads : UsableCpus();
  absl::StatusOr<Backends> backends =
      ChooseBackends(config.backend, num_threads, config.backend.num_ranks);
  if (!backends.ok()) return Fail(backends.status(), kBadUsage);
  const ServerFacts facts{.version = GATEHOUSE_VERSION,
                          .build = GATEHOUSE_BUILD,
                          .backend = std::string(backends->front()->name()),
                          .isa = backends->front()->isa(),
                          .num_threads = num_threads,
                          .num_ranks = config.backend.num_ranks + config.deployment.num_workers};
  PrometheusMetrics metrics({.version = facts.version, .backend = facts.backend, .isa = facts.isa},
                            config.metrics_level);
  if (config.check) return Check(config, *std::move(backends), clock, metrics);

  const auto deployment = MaybeDeployment(config, logger);
  if (!deployment.ok()) return FailToListen(logger, deployment.status());
  std::unique_ptr<Engine> engine;  // outlives the server, which listens before it is there
  absl::StatusOr<std::unique_ptr<GatehouseServer>> server = GatehouseServer::Start(
      config, facts, {metrics, logger, clock, [&signals] { signals.RequestStop(); }});
  if (!server.ok()) return FailToListen(logger, server.status());
  logger.Log(LogLevel::kDebug, "loading", {{"listen", (*server)->listen_address()}});
  // Of the machine, whatever its ranks: by a back end of all threads.
  absl::StatusOr<Backends> whole = ChooseBackends(config.backend, num_threads, 1);
  if (!whole.ok()) return Fail(whole.status(), kFailed);
  const MachineLimits limits = whole->front()->MeasureLimits();
  whole->clear();
  LogLimits(logger, limits, ToSeconds(clock.Now() - start));
  auto loaded =
      Engine::Create(config.engine, *std::move(backends), clock, metrics, deployment->get());
  if (!loaded.ok()) {
    logger.Flush();
    return FailToLoad(loaded.status());
  }
  engine = *std::move(loaded);
  LogModel(logger, *engine, ToSeconds(clock.Now() - start));
  metrics.SetModel(engine->model(), limits,
                   {.membership = engine->Status().membership,
                    .backend = *deployment == nullptr ? "in_process" : "gloo"});

  signals.Arm([&server] { (*server)->HurryDrain(); });
  const absl::Status serving = (*server)->Serve(*engine);
  if (!serving.ok()) {
    signals.Disarm();
    logger.Flush();
    const bool cannot_write = serving.code() == absl::StatusCode::kUnavailable;
    return Fail(serving, cannot_write ? kFailed : kBadUsage);
  }
  LogServing(logger, **server, facts, ToSeconds(clock.Now() - start));
  while (signals.Wait() == SignalThread::Event::kReload) (*server)->Reload();
  logger.Log(LogLevel::kInfo, "draining", {});
  const bool all_ended = (*server)->Drain();
  signals.Disarm();
  logger.Log(LogLevel::kInfo, "stopped", {{"all_requests_ended", all_ended ? "true" : "false"}});
  return kDrained;
}

int Main(const std::vector<std::string>& arguments) {
  const absl::StatusOr<CommandLine> command_line =
      ParseCommandLine(arguments, [](const std::string& name) -> std::optional<std::string> {
        const char* value = std::getenv(name.c_str());
        if (value == nullptr) return std::nullopt;
        return value;
      });
  if (!command_line.ok()) return Fail(command_line.status(), kBadUsage);
  if (command_line->print) {
    std::printf("%s", command_line->text.c_str());
    const absl::StatusOr<v1::RoutingPolicy> routing = LoadRoutingPolicy(command_line->config);
    if (!routing.ok()) return Fail(routing.status(), kBadUsage);
    if (!command_line->config.routing_config.empty()) {
      std::printf("--- # routing-config\n%s", MessageToYaml(*routing).c_str());
    }
    return kDrained;
  }
  // gRPC's own lines have another form than ours and repeat what our errors say; whoever wants them
  // sets the variable.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  SignalThread signals;
  ServerConfig config = command_line->config;
  config.engine.num_other_ranks = config.deployment.num_workers;
  const absl::Status secret = ReadRoutingSecret(config);
  if (!secret.ok()) return Fail(secret, kBadUsage);
  const bool works = config.deployment.is_worker && !config.check;
  return works ? Work(config, signals) : Serve(config, signals);
}

}  // namespace
}  // namespace gatehouse

int main(int argc, char** argv) {
  return gatehouse::Main(std::vector<std::string>(argv + 1, argv + argc));
}
