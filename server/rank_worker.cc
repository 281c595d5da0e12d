#include "server/rank_worker.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <deque>
#include <limits>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "engine/comm/gloo_communicator.h"
#include "engine/comm/key_board.h"
#include "engine/loaded_model.h"
#include "engine/local_rank.h"
#include "gatehouse/v1/worker.grpc.pb.h"
#include "kernels/base/mutex.h"
#include "kernels/base/status_macros.h"
#include "server/heartbeat.h"
#include "server/small_file.h"
#include "server/tls.h"
#include "server/worker_convert.h"
#include "server/worker_session.h"

namespace gatehouse {
namespace {

constexpr size_t kMaxTokenFileBytes = size_t{1} << 16;
constexpr auto kRetry = std::chrono::seconds(1);

// All ranks see all rows; the first one tells its observer.
class SilentObserver final : public RouteObserver {
 public:
  void OnLayer(int, const GateScores&, const RouteDecision&) override {}
};

std::string FirstLine(const std::string& text) {
  const std::string line = text.substr(0, text.find('\n'));
  return std::string(absl::StripAsciiWhitespace(line));
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> CredentialsOf(
    const ServerConfig& config) {
  if (config.deployment.ca.empty()) return grpc::InsecureChannelCredentials();
  TlsFiles files = config.tls;
  files.client_ca = config.deployment.ca;
  GATEHOUSE_ASSIGN_OR_RETURN(const TlsMaterial material, LoadTls(files));
  return grpc::SslCredentials({.pem_root_certs = material.client_ca,
                               .pem_private_key = material.key,
                               .pem_cert_chain = material.certificate_chain});
}

// What was loaded, as the first rank wants to hear it; it stays while the settings do.
struct Loaded {
  v1::RankWelcome welcome;
  v1::RankLoaded report;
  StepLimits limits;
  std::unique_ptr<LocalRank> rank;
};

class JoiningWorker final : public RankWorker {
 public:
  JoiningWorker(RankWorkerParts parts, std::string token,
                const std::shared_ptr<grpc::ChannelCredentials>& credentials);
  ~JoiningWorker() override { RemoveReadyFile(); }

  absl::Status Run() override GATEHOUSE_EXCLUDES(mutex_);
  void Stop() override GATEHOUSE_EXCLUDES(mutex_);

 private:
  absl::Status RunSession() GATEHOUSE_EXCLUDES(mutex_);
  // On the session's thread.
  void Receive(v1::WorkerCommand command) GATEHOUSE_EXCLUDES(mutex_);
  void Lose(const v1::RankLost& lost) GATEHOUSE_EXCLUDES(mutex_);
  // On a thread of its own, one command after the other, until there are no more.
  void Work() GATEHOUSE_EXCLUDES(mutex_);
  std::optional<v1::WorkerCommand> NextCommand() GATEHOUSE_EXCLUDES(mutex_);
  absl::Status Obey(const v1::WorkerCommand& command) GATEHOUSE_EXCLUDES(mutex_);
  absl::Status Load(const v1::RankWelcome& welcome) GATEHOUSE_EXCLUDES(mutex_);
  absl::Status LoadModelOf(const v1::RankWelcome& welcome) GATEHOUSE_EXCLUDES(mutex_);
  absl::Status Form(const v1::RankGroup& group) GATEHOUSE_EXCLUDES(mutex_);
  absl::Status Place(const v1::RankPlace& place);
  absl::Status Step(const v1::RankStep& message);
  absl::StatusOr<std::shared_ptr<Communicator>> Join(const Membership& membership, int rank);

  absl::Status WriteReadyFile();
  void RemoveReadyFile();

  const RankWorkerParts parts_;
  const std::string token_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Deployment::Stub> stub_;
  std::string isa_;
  bool ready_file_written_ = false;  // by the thread of commands

  // Of one session: set before its threads run, and valid until they have ended.
  WorkerSession* session_ = nullptr;
  KeyBoard* board_ = nullptr;
  KnownPolicies policies_;

  Duration deadline_{};           // by the thread of commands
  std::optional<Loaded> loaded_;  // likewise, but for Lose of its rank

  Mutex mutex_;
  CondVar changed_;
  std::deque<v1::WorkerCommand> commands_ GATEHOUSE_GUARDED_BY(mutex_);
  bool session_ended_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  bool stopped_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  WorkerSession* to_cancel_ GATEHOUSE_GUARDED_BY(mutex_) = nullptr;
  LocalRank* to_tell_ GATEHOUSE_GUARDED_BY(mutex_) = nullptr;
  int64_t epoch_ GATEHOUSE_GUARDED_BY(mutex_) = -1;  // of the group that the rank is in
  v1::RankLost lost_ GATEHOUSE_GUARDED_BY(mutex_);   // the last
};

std::shared_ptr<grpc::Channel> ChannelTo(const std::string& target,
                                         const std::shared_ptr<grpc::ChannelCredentials>& with) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  // A worker that waits for the first rank finds it soon after it comes.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  return grpc::CreateCustomChannel(target, with, arguments);
}

JoiningWorker::JoiningWorker(RankWorkerParts parts, std::string token,
                             const std::shared_ptr<grpc::ChannelCredentials>& credentials)
    : parts_(std::move(parts)),
      token_(std::move(token)),
      channel_(ChannelTo(parts_.config.deployment.join, credentials)),
      stub_(v1::Deployment::NewStub(channel_)) {}

void JoiningWorker::RemoveReadyFile() {
  if (ready_file_written_) std::remove(parts_.config.ready_file.c_str());
}

void JoiningWorker::Stop() {
  const MutexLock lock(mutex_);
  stopped_ = true;
  changed_.NotifyAll();
  if (to_cancel_ != nullptr) to_cancel_->Cancel(absl::CancelledError("stopped"));
}

absl::Status JoiningWorker::Run() {
  GATEHOUSE_ASSIGN_OR_RETURN(const Backends backends, parts_.make_backends());
  isa_ = backends.front()->isa();
  parts_.logger.Log(LogLevel::kInfo, "waiting for the first rank",
                    {{"join", parts_.config.deployment.join}});
  std::string last_reason;
  while (true) {
    absl::Status ended = RunSession();
    const MutexLock lock(mutex_);
    if (stopped_) return absl::OkStatus();
    const bool is_full = absl::IsAlreadyExists(ended);
    if (!is_full && !absl::IsAborted(ended) && !absl::IsCancelled(ended)) return ended;
    std::string reason(ended.message());
    if (!is_full || reason != last_reason) {  // which may be so for long
      parts_.logger.Log(LogLevel::kWarning, "joins again", {{"reason", reason}});
    }
    last_reason = std::move(reason);
    if (is_full) changed_.WaitFor(mutex_, kRetry);
    if (stopped_) return absl::OkStatus();
  }
}

absl::Status JoiningWorker::RunSession() {
  WorkerSession session(*stub_, token_);
  KeyBoard board([&](const BoardKey& key) {
    v1::WorkerMessage message;
    *message.mutable_key() = ToProto(key);
    session.Send(message);
  });
  session_ = &session;
  board_ = &board;
  policies_ = {};
  v1::RankHello hello;
  hello.set_protocol(kWorkerProtocol);
  hello.set_version(parts_.version);
  hello.set_isa(isa_);
  hello.set_address(parts_.config.deployment.address);
  if (loaded_) hello.set_last_rank(loaded_->welcome.rank());
  {
    const MutexLock lock(mutex_);
    if (stopped_) return absl::OkStatus();
    to_cancel_ = &session;
    commands_.clear();
    session_ended_ = false;
    lost_.set_epoch(-1);
  }
  std::thread commands([this] { Work(); });
  absl::Status ended =
      session.Run(hello, [this](v1::WorkerCommand command) { Receive(std::move(command)); });
  // Nobody waits for ranks that it can no longer hear of.
  board.End(std::numeric_limits<int64_t>::max());
  {
    const MutexLock lock(mutex_);
    to_cancel_ = nullptr;
    session_ended_ = true;
    changed_.NotifyAll();
    if (to_tell_ != nullptr) to_tell_->Lose(0);
  }
  commands.join();
  return ended;
}

void JoiningWorker::Receive(v1::WorkerCommand command) {
  if (command.has_key()) return board_->Put(FromProto(command.key()));
  if (command.has_lost()) return Lose(command.lost());
  const MutexLock lock(mutex_);
  commands_.push_back(std::move(command));
  changed_.NotifyAll();
}

void JoiningWorker::Lose(const v1::RankLost& lost) {
  board_->End(lost.epoch());
  const MutexLock lock(mutex_);
  lost_ = lost;
  // Of an epoch that is not formed yet: Form looks.
  if (to_tell_ != nullptr && lost.epoch() == epoch_) to_tell_->Lose(lost.rank());
}

std::optional<v1::WorkerCommand> JoiningWorker::NextCommand() {
  const MutexLock lock(mutex_);
  while (commands_.empty() && !session_ended_) changed_.Wait(mutex_);
  if (session_ended_) return std::nullopt;
  v1::WorkerCommand command = std::move(commands_.front());
  commands_.pop_front();
  return command;
}

void JoiningWorker::Work() {
  while (const std::optional<v1::WorkerCommand> command = NextCommand()) {
    const absl::Status obeyed = Obey(*command);
    if (!obeyed.ok()) return session_->Cancel(obeyed);
  }
}

// An error ends the worker: what a step or a group may run into is told to the first rank instead.
absl::Status JoiningWorker::Obey(const v1::WorkerCommand& command) {
  switch (command.command_case()) {
    case v1::WorkerCommand::kWelcome:
      return Load(command.welcome());
    case v1::WorkerCommand::kAccepted:
      return WriteReadyFile();
    case v1::WorkerCommand::kForm:
      return Form(command.form());
    case v1::WorkerCommand::kPlace:
      return Place(command.place());
    case v1::WorkerCommand::kStep:
      return Step(command.step());
    default:
      return absl::InternalError(absl::StrFormat("command %d", command.command_case()));
  }
}

absl::Status JoiningWorker::Load(const v1::RankWelcome& welcome) {
  const bool same = loaded_ && loaded_->welcome.SerializeAsString() == welcome.SerializeAsString();
  if (!same) GATEHOUSE_RETURN_IF_ERROR(LoadModelOf(welcome));
  v1::WorkerMessage message;
  *message.mutable_loaded() = loaded_->report;
  session_->Send(message);
  return absl::OkStatus();
}

absl::Status JoiningWorker::LoadModelOf(const v1::RankWelcome& welcome) {
  {
    const MutexLock lock(mutex_);
    to_tell_ = nullptr;
  }
  loaded_.reset();
  const TimePoint start = std::chrono::steady_clock::now();
  GATEHOUSE_ASSIGN_OR_RETURN(const RankSettings settings, FromProto(welcome));
  GATEHOUSE_ASSIGN_OR_RETURN(Backends backends, parts_.make_backends());
  EngineConfig config = parts_.config.engine;
  config.num_other_ranks = settings.num_ranks - 1;
  config.model.expert_weights = FindWeightFormat(settings.expert_weight_format);
  config.model.dense_weights = FindWeightFormat(settings.dense_weight_format);
  config.cache = {.block_tokens = settings.block_tokens,
                  .kv_cache_bytes = settings.num_kv_blocks * settings.kv_block_bytes,
                  .kv_type = settings.kv_type};
  config.scheduler.max_sequences = settings.max_sequences;
  config.scheduler.max_step_tokens = settings.max_step_tokens;
  config.scheduler.max_context = settings.max_context;
  absl::StatusOr<LoadedParts> read = LoadParts(config, std::move(backends));
  if (absl::IsInvalidArgument(read.status())) {  // it cannot honour the server's settings
    return absl::FailedPreconditionError(
        absl::StrFormat("%s is not the model of the deployment's server: %s",
                        config.model.model_dir, read.status().message()));
  }
  GATEHOUSE_ASSIGN_OR_RETURN(LoadedParts parts, std::move(read));
  Loaded loaded;
  loaded.welcome = welcome;
  loaded.report.set_model_hash(parts.description.hash);
  loaded.report.set_expert_weights(parts.description.expert_weight_format);
  loaded.report.set_dense_weights(parts.description.dense_weight_format);
  loaded.report.set_kv_blocks(parts.memory_plan.num_kv_blocks);
  loaded.limits = {.num_ranks = settings.num_ranks,
                   .rank = welcome.rank(),
                   .vocab_size = parts.model.vocab_size,
                   .num_moe_layers = parts.model.num_moe_layers(),
                   .num_experts = parts.model.moe.num_experts,
                   .max_rows = settings.max_step_tokens,
                   .max_context = settings.max_context,
                   .block_tokens = settings.block_tokens,
                   .num_kv_blocks = parts.memory_plan.num_kv_blocks};
  loaded.rank = std::make_unique<LocalRank>(
      welcome.rank(), std::move(parts.ranks.front()), parts.model.num_moe_layers(),
      [this](const Membership& membership, int rank) { return Join(membership, rank); });
  deadline_ = ExchangeDeadline(settings);
  loaded_ = std::move(loaded);
  parts_.logger.Log(
      LogLevel::kInfo, "loaded",
      {{"rank", std::to_string(welcome.rank())},
       {"ranks", std::to_string(settings.num_ranks)},
       {"model", parts.description.name},
       {"isa", isa_},
       {"seconds", absl::StrFormat("%.3f", ToSeconds(std::chrono::steady_clock::now() - start))}});
  const MutexLock lock(mutex_);
  to_tell_ = loaded_->rank.get();
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Communicator>> JoiningWorker::Join(const Membership& membership,
                                                                  int rank) {
  GATEHOUSE_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> comm,
                             ConnectGloo({.membership = membership,
                                          .rank = rank,
                                          .deadline = deadline_,
                                          .connect_deadline = kConnectDeadline,
                                          .address = parts_.config.deployment.address},
                                         *board_->StoreOf(membership.epoch)));
  return std::shared_ptr<Communicator>(std::move(comm));
}

absl::Status JoiningWorker::Form(const v1::RankGroup& group) {
  const Membership membership = FromProto(group, loaded_ ? loaded_->limits.num_ranks : 0);
  if (!loaded_ || !membership.has(loaded_->limits.rank)) {
    return absl::InternalError("a group that this rank is no member of");
  }
  {
    const MutexLock lock(mutex_);
    epoch_ = -1;
  }
  const absl::Status joined = loaded_->rank->Join(membership);
  v1::WorkerMessage message;
  message.mutable_formed()->set_epoch(membership.epoch);
  if (!joined.ok()) *message.mutable_formed()->mutable_error() = ToProto(joined);
  {
    const MutexLock lock(mutex_);
    epoch_ = membership.epoch;
    if (lost_.epoch() == epoch_) loaded_->rank->Lose(lost_.rank());
  }
  session_->Send(message);
  return absl::OkStatus();
}

absl::Status JoiningWorker::Place(const v1::RankPlace& place) {
  const int layer = place.moe_layer();
  if (!loaded_ || layer < 0 || layer >= loaded_->limits.num_moe_layers) {
    return absl::InternalError(absl::StrFormat("layer %d is none", layer));
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const ExpertPlacement placement, FromProto(place.placement()));
  if (placement.num_experts() != loaded_->limits.num_experts ||
      placement.num_devices != loaded_->limits.num_ranks) {
    return absl::InternalError(absl::StrFormat("a placement of %d experts on %d ranks",
                                               placement.num_experts(), placement.num_devices));
  }
  loaded_->rank->Place(layer, placement);
  return absl::OkStatus();
}

absl::Status JoiningWorker::Step(const v1::RankStep& step_message) {
  if (!loaded_) return absl::InternalError("a step before a model");
  ReceivedStep step;
  GATEHOUSE_RETURN_IF_ERROR(Read(step_message, loaded_->limits, policies_, step));
  SilentObserver silent;
  const absl::StatusOr<RankResult> result =
      loaded_->rank->Run({.rows = &step.rows,
                          .routing = {.tokens = step.tokens,
                                      .policies = step.policies,
                                      .observer = step.observed ? &silent : nullptr,
                                      .num_observed_ranks = step.num_observed_ranks},
                          .slice = &step.slice,
                          .sampling = step.sampling});
  v1::WorkerMessage message;
  *message.mutable_result() = ToProto(step_message.step(), result);
  session_->Send(message);
  return absl::OkStatus();
}

absl::Status JoiningWorker::WriteReadyFile() {
  const std::string& path = parts_.config.ready_file;
  if (path.empty() || ready_file_written_) return absl::OkStatus();
  GATEHOUSE_RETURN_IF_ERROR(
      WriteAtomically(path, absl::StrFormat("{\"pid\":%d,\"rank\":%d,\"join\":\"%s\"}\n", getpid(),
                                            loaded_->limits.rank, parts_.config.deployment.join)));
  ready_file_written_ = true;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<RankWorker>> RankWorker::Create(RankWorkerParts parts) {
  std::string token;
  if (const std::string& file = parts.config.deployment.token_file; !file.empty()) {
    GATEHOUSE_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(file, kMaxTokenFileBytes));
    token = FirstLine(text);
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const auto credentials, CredentialsOf(parts.config));
  return std::make_unique<JoiningWorker>(std::move(parts), std::move(token), credentials);
}

}  // namespace gatehouse
