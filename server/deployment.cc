#include "server/deployment.h"

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "engine/comm/gloo_communicator.h"
#include "gatehouse/v1/worker.grpc.pb.h"
#include "kernels/base/mutex.h"
#include "kernels/base/status_macros.h"
#include "server/generate_service.h"
#include "server/grpc_listener.h"
#include "server/heartbeat.h"
#include "server/live_set.h"
#include "server/remote_rank.h"
#include "server/small_file.h"
#include "server/tenants.h"
#include "server/tls.h"
#include "server/worker_call.h"
#include "server/worker_convert.h"
#include "server/worker_slots.h"

namespace gatehouse {
namespace {

constexpr size_t kMaxTokenFileBytes = size_t{1} << 16;
constexpr auto kCloseTime = std::chrono::seconds(2);

ServerLimits LimitsOfListener() {
  ServerLimits limits;
  limits.max_request_bytes = size_t{256} << 20;  // a step's log-probabilities
  limits.max_connection_bytes = size_t{1} << 30;
  limits.max_connection_age_seconds = 0;  // a worker's call lasts as long as the deployment
  return limits;
}

// What a worker must be to take part; OK or the sentence that it is refused with.
absl::Status CheckHello(const v1::RankHello& hello, const std::string& version) {
  if (hello.version() == version && hello.protocol() == kWorkerProtocol) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "the worker is gatehouse %s (protocol %d), the deployment's server %s (protocol %d)",
      hello.version(), hello.protocol(), version, kWorkerProtocol));
}

absl::Status CheckLoaded(const v1::RankLoaded& loaded, const RankSettings& settings) {
  const auto check = [](const char* what, const std::string& got, const std::string& expected) {
    if (got == expected) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrFormat(
        "the worker's %s: got %s, the deployment's server has %s", what, got, expected));
  };
  GATEHOUSE_RETURN_IF_ERROR(check("model hash", loaded.model_hash(), settings.model_hash));
  GATEHOUSE_RETURN_IF_ERROR(
      check("expert weights", loaded.expert_weights(), settings.expert_weight_format));
  GATEHOUSE_RETURN_IF_ERROR(
      check("dense weights", loaded.dense_weights(), settings.dense_weight_format));
  return check("number of KV blocks", std::to_string(loaded.kv_blocks()),
               std::to_string(settings.num_kv_blocks));
}

class OpenDeployment final : public Deployment,
                             private v1::Deployment::CallbackService,
                             public WorkerCallOwner {
 public:
  OpenDeployment(const ServerConfig& config, const std::string& version, const Logger& logger)
      : options_(config.deployment),
        tls_files_(config.tls),
        version_(version),
        logger_(logger),
        slots_(config.deployment.num_workers) {}
  ~OpenDeployment() override;
  absl::Status Listen();

  const std::string& listen_address() const override { return listener_.address; }
  int num_ranks() const override { return options_.num_workers; }
  absl::StatusOr<std::vector<std::unique_ptr<RankPeer>>> Start(
      const RankSettings& settings) override GATEHOUSE_EXCLUDES(mutex_);
  JoinGroup join() override;

 private:
  grpc::ServerBidiReactor<v1::WorkerMessage, v1::WorkerCommand>* Join(
      grpc::CallbackServerContext* context) override;
  void OnHello(WorkerCall& call, const v1::RankHello& hello) override GATEHOUSE_EXCLUDES(mutex_);
  void OnLoaded(WorkerCall& call, const v1::RankLoaded& loaded) override GATEHOUSE_EXCLUDES(mutex_);
  void OnKey(WorkerCall& call, const v1::RankKey& key) override;
  void OnEnd(WorkerCall& call, const absl::Status& why) override;
  void OnGone(WorkerCall* call) override { calls_.Remove(call); }

  absl::StatusOr<std::shared_ptr<Communicator>> JoinGroupOf(const Membership& membership, int rank);
  std::shared_ptr<WorkerCall> Shared(const WorkerCall& call) const;

  const DeploymentOptions options_;
  const TlsFiles tls_files_;
  const std::string version_;
  const Logger& logger_;
  Tenants tokens_;
  WorkerSlots slots_;
  LiveSet<WorkerCall> calls_;
  std::unique_ptr<TlsCertificates> tls_;
  GrpcListener listener_;
  std::optional<Heartbeat> heartbeat_;

  Mutex mutex_;
  std::optional<RankSettings> settings_ GATEHOUSE_GUARDED_BY(mutex_);  // absent: not loaded yet
};

absl::Status OpenDeployment::Listen() {
  if (!options_.token_file.empty()) {
    GATEHOUSE_ASSIGN_OR_RETURN(const std::string text,
                               ReadSmallFile(options_.token_file, kMaxTokenFileBytes));
    GATEHOUSE_ASSIGN_OR_RETURN(TenantTable table, TenantTable::ParseTokens(text));
    tokens_.Set(std::move(table));
  }
  if (!options_.ca.empty()) {
    TlsFiles files = tls_files_;
    files.client_ca = options_.ca;
    GATEHOUSE_ASSIGN_OR_RETURN(TlsMaterial material, LoadTls(files));
    tls_ = std::make_unique<TlsCertificates>(std::move(material));
  }
  GATEHOUSE_ASSIGN_OR_RETURN(
      listener_, StartGrpcListener(options_.listen, tls_.get(), LimitsOfListener(), *this));
  heartbeat_.emplace([this](bool was_held_up) {
    for (const std::shared_ptr<WorkerCall>& call : calls_.All()) call->Beat(was_held_up);
  });
  return absl::OkStatus();
}

OpenDeployment::~OpenDeployment() {
  for (const std::shared_ptr<WorkerCall>& call : calls_.All()) {
    call->End(absl::UnavailableError("the deployment's server goes"));
  }
  calls_.WaitUntilEmpty(kCloseTime);
  listener_.Close();
  heartbeat_.reset();
}

absl::StatusOr<std::vector<std::unique_ptr<RankPeer>>> OpenDeployment::Start(
    const RankSettings& settings) {
  std::vector<std::shared_ptr<WorkerCall>> here;
  {
    const MutexLock lock(mutex_);
    settings_ = settings;
    here = slots_.Taken();
  }
  logger_.Log(LogLevel::kInfo, "waiting for workers",
              {{"workers", std::to_string(options_.num_workers)}, {"listen", listen_address()}});
  for (const std::shared_ptr<WorkerCall>& call : here) {
    v1::WorkerCommand command;
    *command.mutable_welcome() = ToProto(settings, call->rank());
    call->Send(std::move(command));
  }
  slots_.WaitUntilAllUp();
  std::vector<std::unique_ptr<RankPeer>> ranks;
  for (int r = 1; r < slots_.num_ranks(); ++r) {
    ranks.push_back(std::make_unique<RemoteRank>(slots_, r));
  }
  return ranks;
}

JoinGroup OpenDeployment::join() {
  return [this](const Membership& membership, int rank) { return JoinGroupOf(membership, rank); };
}

absl::StatusOr<std::shared_ptr<Communicator>> OpenDeployment::JoinGroupOf(
    const Membership& membership, int rank) {
  Duration deadline{};
  {
    const MutexLock lock(mutex_);
    deadline = ExchangeDeadline(*settings_);
  }
  GATEHOUSE_RETURN_IF_ERROR(slots_.BeginEpoch(membership));
  auto comm = ConnectGloo({.membership = membership,
                           .rank = rank,
                           .deadline = deadline,
                           .connect_deadline = kConnectDeadline,
                           .address = options_.address},
                          *slots_.board().StoreOf(membership.epoch));
  if (comm.ok()) return std::shared_ptr<Communicator>(*std::move(comm));
  slots_.EndEpoch(membership.epoch, rank);
  return comm.status();
}

grpc::ServerBidiReactor<v1::WorkerMessage, v1::WorkerCommand>* OpenDeployment::Join(
    grpc::CallbackServerContext* context) {
  const auto call = std::make_shared<WorkerCall>(*this, *context);
  calls_.Add(call);
  const absl::Status known = tokens_.Authenticate(AuthorizationOf(*context)).status();
  if (known.ok()) {
    call->Begin();
  } else {
    call->End(absl::UnauthenticatedError(
        "the worker's --deployment-token-file does not hold a token of the deployment"));
  }
  return call.get();  // calls_ holds it until OnDone, which cannot come before this returns
}

std::shared_ptr<WorkerCall> OpenDeployment::Shared(const WorkerCall& call) const {
  for (std::shared_ptr<WorkerCall>& live : calls_.All()) {
    if (live.get() == &call) return std::move(live);
  }
  return nullptr;
}

void OpenDeployment::OnHello(WorkerCall& call, const v1::RankHello& hello) {
  absl::Status fits = CheckHello(hello, version_);
  if (fits.ok() && call.rank() >= 0) fits = absl::InvalidArgumentError("a second hello");
  v1::WorkerCommand command;
  if (fits.ok()) {
    const std::optional<int> last =
        hello.has_last_rank() ? std::optional<int>(hello.last_rank()) : std::nullopt;
    const MutexLock lock(mutex_);  // Start tells those who have a slot
    fits = slots_.Take(Shared(call), last).status();
    if (fits.ok() && settings_) *command.mutable_welcome() = ToProto(*settings_, call.rank());
  }
  if (!fits.ok()) return call.End(fits);
  logger_.Log(LogLevel::kInfo, "a worker joins",
              {{"rank", std::to_string(call.rank())},
               {"peer", call.peer()},
               {"address", hello.address()},
               {"isa", hello.isa()}});
  if (command.has_welcome()) call.Send(std::move(command));
}

void OpenDeployment::OnLoaded(WorkerCall& call, const v1::RankLoaded& loaded) {
  absl::Status fits = absl::OkStatus();
  {
    const MutexLock lock(mutex_);
    if (settings_) fits = CheckLoaded(loaded, *settings_);
  }
  if (!fits.ok()) return call.End(fits);
  v1::WorkerCommand command;
  command.mutable_accepted();
  call.Send(std::move(command));  // before it is up: commands of a group come after
  slots_.SetUp(call);
  logger_.Log(LogLevel::kInfo, "a worker is ready", {{"rank", std::to_string(call.rank())}});
}

void OpenDeployment::OnKey(WorkerCall& call, const v1::RankKey& key) {
  if (call.rank() > 0) slots_.Publish(FromProto(key), call.rank());
}

void OpenDeployment::OnEnd(WorkerCall& call, const absl::Status& why) {
  slots_.Leave(call);
  logger_.Log(LogLevel::kWarning, "a worker is gone",
              {{"rank", std::to_string(call.rank())},
               {"peer", call.peer()},
               {"reason", std::string(why.message())}});
}

}  // namespace

absl::StatusOr<std::unique_ptr<Deployment>> Deployment::Open(const ServerConfig& config,
                                                             const std::string& version,
                                                             const Logger& logger) {
  auto deployment = std::make_unique<OpenDeployment>(config, version, logger);
  GATEHOUSE_RETURN_IF_ERROR(deployment->Listen());
  return deployment;
}

}  // namespace gatehouse
