#include "server/gatehouse_server.h"

#include <fcntl.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/base/mutex.h"
#include "kernels/base/status_macros.h"
#include "server/front_pool.h"
#include "server/generate_service.h"
#include "server/health.h"
#include "server/metrics_http.h"

namespace gatehouse {
namespace {

constexpr char kServiceName[] = "gatehouse.v1.Inference";
constexpr int kFrontThreads = 2;
constexpr FrontPool::Limits kFrontLimits = {.max_tasks = 256, .max_bytes = size_t{64} << 20};
constexpr Duration kWatchPeriod = std::chrono::milliseconds(200);
// At least this long for the last messages of a drained server to reach their readers.
constexpr Duration kFlushTime = std::chrono::seconds(2);
// gRPC's Shutdown waits this long for calls that end by themselves; only health watches are left.
constexpr auto kShutdownGrace = std::chrono::milliseconds(50);

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file || text.str().empty()) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: cannot be read or is empty, expected PEM", path));
  }
  return text.str();
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeCredentials(const TlsFiles& tls) {
  if (!tls.enabled()) return grpc::InsecureServerCredentials();
  grpc::SslServerCredentialsOptions options(
      tls.client_ca.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                            : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  grpc::SslServerCredentialsOptions::PemKeyCertPair pair;
  GATEHOUSE_ASSIGN_OR_RETURN(pair.cert_chain, ReadFile(tls.certificate));
  GATEHOUSE_ASSIGN_OR_RETURN(pair.private_key, ReadFile(tls.key));
  options.pem_key_cert_pairs.push_back(std::move(pair));
  if (!tls.client_ca.empty()) {
    GATEHOUSE_ASSIGN_OR_RETURN(options.pem_root_certs, ReadFile(tls.client_ca));
  }
  return grpc::SslServerCredentials(options);
}

// gRPC does not say why a listener failed. On a free port only the credentials can be the reason.
bool CanServeWith(const std::shared_ptr<grpc::ServerCredentials>& credentials) {
  grpc::CallbackGenericService service;  // gRPC starts no server without one
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", credentials, &port);
  builder.RegisterCallbackGenericService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  return server != nullptr && port != 0;
}

StreamLimits LimitsOf(const ServerConfig& config) {
  return {.max_unread_bytes = config.max_unread_bytes,
          .max_unread_prompt_bytes = config.max_unread_prompt_bytes,
          .max_unread_time = std::chrono::duration_cast<Duration>(
              std::chrono::duration<double>(config.max_unread_seconds))};
}

// Written beside and renamed, so that whoever waits for the file never reads half of it.
absl::Status WriteAtomically(const std::string& path, const std::string& text) {
  const std::string temporary = absl::StrFormat("%s.%d.tmp", path, getpid());
  {
    std::ofstream file(temporary, std::ios::trunc);
    file << text;
    file.close();
    if (!file) {
      return absl::UnavailableError(absl::StrFormat("--ready-file %s: cannot be written", path));
    }
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    std::remove(temporary.c_str());
    return absl::UnavailableError(absl::StrFormat("--ready-file %s: cannot be written", path));
  }
  return absl::OkStatus();
}

class ListeningServer final : public GatehouseServer {
 public:
  ListeningServer(const ServerConfig& config, const ServerFacts& facts, const ServerParts& parts)
      : config_(config),
        parts_(parts),
        front_(kFrontThreads, kFrontLimits),
        service_({.engine = parts.engine,
                  .metrics = parts.metrics,
                  .logger = parts.logger,
                  .clock = parts.clock,
                  .front = front_,
                  .active = active_,
                  .limits = LimitsOf(config)},
                 ToServerInfo(facts, config, parts.engine)),
        judge_(std::chrono::duration_cast<Duration>(
            std::chrono::duration<double>(config.stall_seconds))) {}
  ~ListeningServer() override;

  absl::Status Listen();
  bool Drain() override;
  const std::string& listen_address() const override { return listen_address_; }
  const std::string& metrics_address() const override {
    return http_ == nullptr ? no_address_ : http_->address();
  }

 private:
  absl::Status StartGrpc();
  absl::Status StartHttp();
  HttpReply Ready();
  void Watch();
  void UpdateHealth() GATEHOUSE_EXCLUDES(mutex_);
  void StopWatching();
  void Close();

  const ServerConfig config_;
  const ServerParts parts_;
  const std::string no_address_;
  std::string listen_address_;
  bool ready_file_written_ = false;

  FrontPool front_;
  ActiveCalls active_;
  GenerateService service_;
  std::unique_ptr<grpc::Server> grpc_;
  std::unique_ptr<MetricsHttp> http_;
  std::thread watcher_;

  ProgressJudge judge_;  // by the watcher, and by Listen before there is one

  Mutex mutex_;
  CondVar changed_;
  HealthReport health_ GATEHOUSE_GUARDED_BY(mutex_);
  bool draining_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  bool stopping_ GATEHOUSE_GUARDED_BY(mutex_) = false;
};

absl::Status ListeningServer::StartGrpc() {
  GATEHOUSE_ASSIGN_OR_RETURN(const auto credentials, MakeCredentials(config_.tls));
  grpc::EnableDefaultHealthCheckService(true);
  if (IsLoopback(config_.listen)) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(config_.listen, credentials, &port);
  builder.RegisterService(&service_);
  builder.SetMaxReceiveMessageSize(static_cast<int>(config_.max_request_bytes));
  // Without it a second server on the same port starts silently and takes half of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS,
                             static_cast<int>(config_.max_connection_age_seconds * 1000));
  // A client whose machine is gone sends no FIN: ask, so that its requests end within a minute.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  grpc_ = builder.BuildAndStart();
  if (grpc_ == nullptr || port == 0) {
    if (config_.tls.enabled() && !CanServeWith(credentials)) {
      const TlsFiles& tls = config_.tls;
      return absl::FailedPreconditionError(absl::StrFormat(
          "%s, %s%s: cannot be used for TLS, expected PEM and the key of the certificate",
          tls.certificate, tls.key, tls.client_ca.empty() ? "" : ", " + tls.client_ca));
    }
    return absl::UnavailableError(absl::StrFormat(
        "cannot listen on %s: the port is taken or the address is not this machine's",
        config_.listen));
  }
  listen_address_ =
      absl::StrFormat("%s:%d", config_.listen.substr(0, config_.listen.rfind(':')), port);
  return absl::OkStatus();
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
  handlers["/readyz"] = [this] { return Ready(); };
  GATEHOUSE_ASSIGN_OR_RETURN(http_,
                             MetricsHttp::Start(config_.metrics_listen, std::move(handlers)));
  return absl::OkStatus();
}

HttpReply ListeningServer::Ready() {
  const MutexLock lock(mutex_);
  return {.status = health_.serving() ? 200 : 503, .body = ReadyJson(health_)};
}

absl::Status ListeningServer::Listen() {
  GATEHOUSE_RETURN_IF_ERROR(StartHttp());
  GATEHOUSE_RETURN_IF_ERROR(StartGrpc());
  UpdateHealth();
  watcher_ = std::thread([this] { Watch(); });
  if (config_.ready_file.empty()) return absl::OkStatus();
  GATEHOUSE_RETURN_IF_ERROR(WriteAtomically(
      config_.ready_file, absl::StrFormat("{\"pid\":%d,\"listen\":\"%s\",\"metrics\":\"%s\"}\n",
                                          getpid(), listen_address_, metrics_address())));
  ready_file_written_ = true;
  return absl::OkStatus();
}

void ListeningServer::UpdateHealth() {
  EngineStatus status = parts_.engine.Status();
  parts_.metrics.SetStatus(status);
  {
    const MutexLock lock(mutex_);
    status.draining |= draining_ || stopping_;
  }
  const HealthReport report = judge_.Judge(status, parts_.clock.Now());
  parts_.metrics.SetState(report.state);
  HealthReport before;
  {
    const MutexLock lock(mutex_);
    before = std::exchange(health_, report);
  }
  if (report.state != before.state && before.state != EngineState::kLoading) {
    parts_.logger.Log(report.serving() ? LogLevel::kInfo : LogLevel::kWarning, "state",
                      {{"state", EngineStateName(report.state)}, {"reason", report.reason}});
  }
  grpc::HealthCheckServiceInterface* health = grpc_->GetHealthCheckService();
  if (report.serving() != before.serving()) {
    health->SetServingStatus("", report.serving());
    health->SetServingStatus(kServiceName, report.serving());
  }
}

// Health from outside the engine, and streams whose reader takes nothing.
void ListeningServer::Watch() {
  bool stopping = false;
  while (!stopping) {
    {
      const MutexLock lock(mutex_);
      if (!stopping_) changed_.WaitFor(mutex_, kWatchPeriod);
      stopping = stopping_;
    }
    UpdateHealth();  // also at the end: an idle server drains in less than a period
    active_.CheckStalls();
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
  const TimePoint deadline =
      parts_.clock.Now() +
      std::chrono::duration_cast<Duration>(std::chrono::duration<double>(config_.drain_seconds));
  {
    const MutexLock lock(mutex_);
    draining_ = true;
  }
  changed_.NotifyAll();  // the watcher says so at once, and once per period again
  parts_.engine.Drain(deadline);
  const Duration left = deadline - parts_.clock.Now();
  const bool all_ended = left > Duration::zero();
  const bool all_read = active_.WaitUntilNone(std::max(kFlushTime, left));
  Close();
  return all_ended && all_read;
}

void ListeningServer::Close() {
  StopWatching();  // before gRPC goes, whose health service it uses
  if (grpc_ != nullptr) {
    grpc_->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
    grpc_->Wait();
    grpc_ = nullptr;
  }
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
