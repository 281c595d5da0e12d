#include "server/gatehouse_server.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/base/mutex.h"
#include "kernels/base/status_macros.h"
#include "server/admin_service.h"
#include "server/front_pool.h"
#include "server/generate_service.h"
#include "server/grpc_listener.h"
#include "server/health.h"
#include "server/metrics_http.h"
#include "server/reloader.h"
#include "server/small_file.h"
#include "server/tls.h"

namespace gatehouse {
namespace {

constexpr Duration kWatchPeriod = std::chrono::milliseconds(100);
constexpr Duration kReloadPeriod = std::chrono::seconds(1);
constexpr size_t kMaxTokenFileBytes = size_t{4} << 20;
// At least this long for the last messages of a drained server to reach their readers.
constexpr Duration kFlushTime = std::chrono::seconds(2);

Duration Seconds(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

StreamLimits LimitsOf(const ServerLimits& limits) {
  return {.max_unread_bytes = limits.max_unread_bytes,
          .max_unread_prompt_bytes = limits.max_unread_prompt_bytes,
          .max_unread_time = Seconds(limits.max_unread_seconds)};
}

// A token file names itself in what is wrong with it.
absl::Status Named(const std::string& file, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrFormat("%s: %s", file, status.message()));
}

class ListeningServer final : public GatehouseServer {
 public:
  ListeningServer(const ServerConfig& config, const ServerFacts& facts, const ServerParts& parts);
  ~ListeningServer() override;

  absl::Status Listen();
  absl::Status Serve(Engine& engine) override;
  void Reload() override;
  bool Drain() override;
  void HurryDrain() override { BoundDrain(Seconds(config_.drain_seconds)); }
  const std::string& listen_address() const override { return public_.address; }
  const std::string& admin_address() const override { return admin_.address; }
  const std::string& metrics_address() const override {
    return http_ == nullptr ? no_address_ : http_->address();
  }

 private:
  absl::Status LoadFiles();
  absl::Status AddTls(ReloadedFile what, const TlsFiles& files,
                      std::unique_ptr<TlsCertificates>& certificates);
  absl::Status AddTokens(ReloadedFile what, const AuthFiles& files, Tenants& tenants);
  absl::Status StartHttp();
  absl::Status StartAdmin();
  void RequestDrain(Duration time);
  void BoundDrain(Duration time) GATEHOUSE_EXCLUDES(mutex_);
  TimePoint DrainDeadline() GATEHOUSE_EXCLUDES(mutex_);
  void Watch();
  void UpdateHealth() GATEHOUSE_EXCLUDES(mutex_);
  void StopWatching();
  void Close();

  const ServerConfig config_;
  const ServerParts parts_;
  const std::string no_address_;
  bool ready_file_written_ = false;

  ServingState state_;
  Tenants tenants_;
  Tenants operators_;
  Reloader reloader_;  // by Listen, then by the watcher
  RoutingControl routing_;
  RateWindow rates_;
  FrontPool front_;
  LiveSet<GenerateCall> active_;
  ByteBudget open_bytes_;
  AdminWatches watches_;
  GenerateService service_;
  AdminService admin_service_;
  std::unique_ptr<TlsCertificates> public_tls_;
  std::unique_ptr<TlsCertificates> admin_tls_;
  GrpcListener public_;
  GrpcListener admin_;
  std::unique_ptr<MetricsHttp> http_;
  std::thread watcher_;

  ProgressJudge judge_;  // by the watcher

  Mutex mutex_;
  CondVar changed_;
  bool reload_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  bool update_ GATEHOUSE_GUARDED_BY(mutex_) = false;  // health, now
  bool draining_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  bool stopping_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  TimePoint drain_deadline_ GATEHOUSE_GUARDED_BY(mutex_) = kNoDeadline;  // it only moves earlier
};

ListeningServer::ListeningServer(const ServerConfig& config, const ServerFacts& facts,
                                 const ServerParts& parts)
    : config_(config),
      parts_(parts),
      reloader_(parts.metrics, parts.logger),
      front_(config.limits.front_threads, {.max_tasks = config.limits.max_front_tasks,
                                           .max_bytes = config.limits.max_front_bytes}),
      open_bytes_(config.limits.max_open_bytes),
      watches_(config.limits.max_watches),
      service_({.state = state_,
                .metrics = parts.metrics,
                .logger = parts.logger,
                .clock = parts.clock,
                .front = front_,
                .active = active_,
                .routing = routing_,
                .open_bytes = open_bytes_,
                .limits = LimitsOf(config.limits)},
               tenants_, facts, config),
      admin_service_({.state = state_,
                      .metrics = parts.metrics,
                      .logger = parts.logger,
                      .clock = parts.clock,
                      .rates = rates_,
                      .active = active_,
                      .operators = operators_,
                      .watches = watches_,
                      .routing = routing_,
                      .request_drain = [this](Duration time) { RequestDrain(time); }},
                     facts, config),
      judge_(config.limits) {}

absl::Status ListeningServer::AddTls(ReloadedFile what, const TlsFiles& files,
                                     std::unique_ptr<TlsCertificates>& certificates) {
  if (!files.enabled()) return absl::OkStatus();
  std::vector<std::string> paths = {files.certificate, files.key};
  if (!files.client_ca.empty()) paths.push_back(files.client_ca);
  return reloader_.Add(what, std::move(paths), [=, this, &certificates]() -> absl::Status {
    GATEHOUSE_ASSIGN_OR_RETURN(TlsMaterial material, LoadTls(files));
    const double expiry = material.expiry_unix_seconds;
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    if (expiry < std::chrono::duration<double>(now).count()) {
      parts_.logger.Log(LogLevel::kError, "a certificate has expired",
                        {{"file", ReloadedFileName(what)}});
    }
    parts_.metrics.SetCertificateExpiry(what, expiry);
    if (certificates == nullptr) {
      certificates = std::make_unique<TlsCertificates>(std::move(material));
    } else {
      certificates->Set(std::move(material));
    }
    return absl::OkStatus();
  });
}

absl::Status ListeningServer::AddTokens(ReloadedFile what, const AuthFiles& files,
                                        Tenants& tenants) {
  if (!files.enabled()) return absl::OkStatus();
  const bool is_yaml = !files.tenants.empty();
  const std::string path = is_yaml ? files.tenants : files.tokens;
  return reloader_.Add(what, {path}, [=, &tenants]() -> absl::Status {
    GATEHOUSE_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxTokenFileBytes));
    absl::StatusOr<TenantTable> table =
        is_yaml ? TenantTable::Parse(text) : TenantTable::ParseTokens(text);
    if (!table.ok()) return Named(path, table.status());
    tenants.Set(*std::move(table));
    return absl::OkStatus();
  });
}

absl::Status ListeningServer::LoadFiles() {
  GATEHOUSE_RETURN_IF_ERROR(AddTls(ReloadedFile::kTls, config_.tls, public_tls_));
  GATEHOUSE_RETURN_IF_ERROR(AddTokens(ReloadedFile::kTenants, config_.auth, tenants_));
  if (config_.admin.listen.empty()) return absl::OkStatus();
  TlsFiles admin_tls = config_.tls;
  admin_tls.client_ca = config_.admin.client_ca;
  GATEHOUSE_RETURN_IF_ERROR(AddTls(ReloadedFile::kAdminTls, admin_tls, admin_tls_));
  return AddTokens(ReloadedFile::kAdminTokens, {.tokens = config_.admin.token_file, .tenants = ""},
                   operators_);
}

absl::Status ListeningServer::StartHttp() {
  if (config_.metrics_listen.empty()) return absl::OkStatus();
  MetricsHttp::Handlers handlers;
  handlers["/metrics"] = [this] {
    return HttpReply{.status = 200,
                     .content_type = "text/plain; version=0.0.4; charset=utf-8",
                     .body = parts_.metrics.Scrape()};
  };
  handlers["/healthz"] = [] { return HttpReply{.body = "{\"alive\":true}\n"}; };
  handlers["/readyz"] = [this] {
    const HealthReport health = state_.health();
    return HttpReply{.status = health.serving() ? 200 : 503, .body = ReadyJson(health)};
  };
  GATEHOUSE_ASSIGN_OR_RETURN(http_,
                             MetricsHttp::Start(config_.metrics_listen, std::move(handlers)));
  return absl::OkStatus();
}

// A second server on a machine need not name a listener that nobody asked for.
absl::Status ListeningServer::StartAdmin() {
  const auto start = [this](const std::string& address) {
    return StartGrpcListener(address, admin_tls_.get(), config_.limits, admin_service_);
  };
  absl::StatusOr<GrpcListener> listener = start(config_.admin.listen);
  if (!listener.ok() && config_.admin.listen == AdminOptions().listen) {
    listener = start("127.0.0.1:0");
    if (listener.ok()) {
      parts_.logger.Log(LogLevel::kWarning, "the default of --admin-listen is taken",
                        {{"default", config_.admin.listen}, {"admin", listener->address}});
    }
  }
  if (!listener.ok()) return listener.status();
  admin_ = *std::move(listener);
  return absl::OkStatus();
}

absl::Status ListeningServer::Listen() {
  GATEHOUSE_RETURN_IF_ERROR(LoadFiles());
  GATEHOUSE_RETURN_IF_ERROR(StartHttp());
  GATEHOUSE_ASSIGN_OR_RETURN(
      public_, StartGrpcListener(config_.listen, public_tls_.get(), config_.limits, service_));
  if (!config_.admin.listen.empty()) GATEHOUSE_RETURN_IF_ERROR(StartAdmin());
  watcher_ = std::thread([this] { Watch(); });
  return absl::OkStatus();
}

absl::Status ListeningServer::Serve(Engine& engine) {
  GATEHOUSE_ASSIGN_OR_RETURN(v1::RoutingPolicy routing, LoadRoutingPolicy(config_));
  const absl::Status usable = routing_.Start(FactsOf(engine.model(), config_.engine), routing);
  if (!usable.ok()) return Named(config_.routing_config, usable);
  const auto& scheduler = config_.engine.scheduler;
  parts_.metrics.SetQueueLimits(scheduler.max_queued_requests, scheduler.max_queued_tokens);
  parts_.metrics.SetRoutingPolicyVersion(routing_.policy().version());
  state_.SetEngine(engine);
  {
    // Whoever reads the ready file finds a server that says SERVING.
    const MutexLock lock(mutex_);
    update_ = true;
    changed_.NotifyAll();
    while (update_) changed_.Wait(mutex_);
  }
  if (config_.ready_file.empty()) return absl::OkStatus();
  GATEHOUSE_RETURN_IF_ERROR(WriteAtomically(
      config_.ready_file,
      absl::StrFormat("{\"pid\":%d,\"listen\":\"%s\",\"admin\":\"%s\",\"metrics\":\"%s\"}\n",
                      getpid(), listen_address(), admin_address(), metrics_address())));
  ready_file_written_ = true;
  return absl::OkStatus();
}

void ListeningServer::Reload() {
  const MutexLock lock(mutex_);
  reload_ = true;
  changed_.NotifyAll();
}

void ListeningServer::RequestDrain(Duration time) {
  BoundDrain(time);
  parts_.on_drain_request();
}

void ListeningServer::BoundDrain(Duration time) {
  const MutexLock lock(mutex_);
  drain_deadline_ = std::min(drain_deadline_, parts_.clock.Now() + time);
}

TimePoint ListeningServer::DrainDeadline() {
  const MutexLock lock(mutex_);
  return drain_deadline_;
}

void ListeningServer::UpdateHealth() {
  const Engine* engine = state_.engine();
  if (engine == nullptr) return;
  EngineStatus status = engine->Status();
  parts_.metrics.SetStatus(status);
  parts_.metrics.SetRebalance(engine->Rebalancing());
  {
    const MutexLock lock(mutex_);
    status.draining |= draining_ || stopping_;
  }
  const TimePoint now = parts_.clock.Now();
  const HealthReport report = judge_.Judge(status, parts_.metrics.LongestStepSeconds(), now);
  parts_.metrics.SetState(report.state);
  const HealthReport before = state_.Exchange(report);
  if (report.state != before.state && before.state != EngineState::kLoading) {
    parts_.logger.Log(report.serving() ? LogLevel::kInfo : LogLevel::kWarning, "state",
                      {{"state", EngineStateName(report.state)}, {"reason", report.reason}});
  }
  if (report.serving() == before.serving()) return;
  public_.SetServing(report.serving());
  if (admin_.server != nullptr) admin_.SetServing(report.serving());
}

// Health from outside the engine, streams whose reader takes nothing, files that have changed.
void ListeningServer::Watch() {
  bool stopping = false;
  TimePoint next_reload = parts_.clock.Now() + kReloadPeriod;
  while (!stopping) {
    bool reload = false, update = false, draining = false;
    {
      const MutexLock lock(mutex_);
      if (!stopping_ && !reload_ && !update_) changed_.WaitFor(mutex_, kWatchPeriod);
      stopping = stopping_;
      draining = draining_;
      reload = std::exchange(reload_, false);
      update = update_;
    }
    UpdateHealth();  // also at the end: an idle server drains in less than a period
    if (update) {
      const MutexLock lock(mutex_);
      update_ = false;
      changed_.NotifyAll();
    }
    const TimePoint now = parts_.clock.Now();
    rates_.Add(now, parts_.metrics.Totals());
    for (const std::shared_ptr<GenerateCall>& call : active_.All()) call->CheckStall();
    watches_.Tick(now);
    // Drain told the engine of the deadline that it knew; it may have moved since.
    const TimePoint deadline = DrainDeadline();
    if (draining && now >= deadline) state_.engine()->Drain(deadline);
    if (!reload && now < next_reload) continue;
    next_reload = now + kReloadPeriod;
    reloader_.Check(reload);
  }
}

void ListeningServer::StopWatching() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  if (watcher_.joinable()) watcher_.join();
}

bool ListeningServer::Drain() {
  if (DrainDeadline() == kNoDeadline) HurryDrain();  // nobody has asked for another time
  {
    const MutexLock lock(mutex_);
    draining_ = true;
  }
  changed_.NotifyAll();  // the watcher says so at once, and once per period again
  state_.engine()->Drain(DrainDeadline());
  const TimePoint end = parts_.clock.Now();
  const bool all_ended = end < DrainDeadline();
  bool all_read = false;
  while (!all_read && parts_.clock.Now() < std::max(end + kFlushTime, DrainDeadline())) {
    all_read = active_.WaitUntilEmpty(kWatchPeriod);
  }
  Close();
  return all_ended && all_read;
}

void ListeningServer::Close() {
  StopWatching();  // before gRPC goes, whose health service it uses
  watches_.EndAll(absl::UnavailableError("the server goes"));
  public_.Close();
  admin_.Close();
  http_ = nullptr;
}

ListeningServer::~ListeningServer() {
  Close();
  // One that was never written may be another server's.
  if (ready_file_written_) std::remove(config_.ready_file.c_str());
}

}  // namespace

absl::StatusOr<std::unique_ptr<GatehouseServer>> GatehouseServer::Start(const ServerConfig& config,
                                                                        const ServerFacts& facts,
                                                                        const ServerParts& parts) {
  auto server = std::make_unique<ListeningServer>(config, facts, parts);
  GATEHOUSE_RETURN_IF_ERROR(server->Listen());
  return server;
}

}  // namespace gatehouse
