#include "client/gatehouse_client.h"

#include <grpcpp/grpcpp.h>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "client/rpc_error.h"
#include "gatehouse/v1/inference.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace gatehouse {
namespace {

namespace health = ::grpc::health::v1;

// Answers are small, but a prompt's tokens may not be: gRPC's default of 4 MiB is an hour of
// debugging for whoever meets it first.
constexpr int kMaxReceiveBytes = 64 << 20;

bool IsLoopback(const std::string& target) {
  return absl::StartsWith(target, "127.") || absl::StartsWith(target, "localhost:") ||
         absl::StartsWith(target, "[::1]");
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const std::string& text = status.error_message();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()),
                      absl::string_view(text.data(), text.size()));
  if (!status.error_details().empty()) {
    result.SetPayload(kStatusDetailsUrl, absl::Cord(status.error_details()));
  }
  return result;
}

HealthState FromProto(const health::HealthCheckResponse& response) {
  switch (response.status()) {
    case health::HealthCheckResponse::SERVING:
      return HealthState::kServing;
    case health::HealthCheckResponse::NOT_SERVING:
      return HealthState::kNotServing;
    case health::HealthCheckResponse::SERVICE_UNKNOWN:
      return HealthState::kServiceUnknown;
    default:
      return HealthState::kUnknown;
  }
}

class SyncStream final : public GenerateStream {
 public:
  ~SyncStream() override {
    if (reader == nullptr || finished_) return;
    context.TryCancel();
    Finish().IgnoreError();  // nobody is left to hear it
  }
  bool Next(v1::GenerateResponse& event) override { return reader->Read(&event); }
  absl::Status Finish() override {
    finished_ = true;
    v1::GenerateResponse unread;  // Finish before the last Read would wait for ever
    while (reader->Read(&unread)) {
    }
    return FromGrpc(reader->Finish());
  }
  void Cancel() override { context.TryCancel(); }

  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader;

 private:
  bool finished_ = false;
};

// Holds itself alive from Start to OnDone, which gRPC calls exactly once.
class CallbackCall final : public GenerateCall,
                           public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  CallbackCall(v1::GenerateRequest request, std::shared_ptr<GenerateHandler> handler)
      : request_(std::move(request)), handler_(std::move(handler)) {}

  void Start(v1::Inference::Stub& stub, std::shared_ptr<CallbackCall> self) {
    self_ = std::move(self);
    stub.async()->Generate(&context, &request_, this);
    StartRead(&response_);
    StartCall();
  }
  void Cancel() override { context.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    handler_->OnEvent(response_);
    StartRead(&response_);
  }
  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<CallbackCall> self = std::move(self_);
    handler_->OnDone(FromGrpc(status));
    handler_.reset();  // a caller may still hold the call: break the cycle
  }

  grpc::ClientContext context;

 private:
  const v1::GenerateRequest request_;
  v1::GenerateResponse response_;
  std::shared_ptr<GenerateHandler> handler_;
  std::shared_ptr<CallbackCall> self_;
};

class GrpcClient final : public GatehouseClient {
 public:
  GrpcClient(const ClientOptions& options, std::shared_ptr<grpc::Channel> channel)
      : target_(options.target),
        authorization_(options.auth_token.empty() ? "" : "Bearer " + options.auth_token),
        channel_(std::move(channel)),
        stub_(v1::Inference::NewStub(channel_)),
        health_stub_(health::Health::NewStub(channel_)) {}

  absl::Status WaitUntilConnected(std::chrono::milliseconds timeout) override {
    const auto deadline = std::chrono::system_clock::now() + timeout;
    for (grpc_connectivity_state state = channel_->GetState(true); state != GRPC_CHANNEL_READY;
         state = channel_->GetState(true)) {
      if (state == GRPC_CHANNEL_TRANSIENT_FAILURE || state == GRPC_CHANNEL_SHUTDOWN) {
        return absl::UnavailableError(absl::StrFormat("cannot connect to %s", target_));
      }
      if (!channel_->WaitForStateChange(state, deadline)) {
        return absl::UnavailableError(
            absl::StrFormat("no connection to %s after %d ms", target_, timeout.count()));
      }
    }
    return absl::OkStatus();
  }

  bool reachable() override { return channel_->GetState(false) != GRPC_CHANNEL_TRANSIENT_FAILURE; }

  std::unique_ptr<GenerateStream> Generate(const v1::GenerateRequest& request,
                                           const CallOptions& options) override {
    auto stream = std::make_unique<SyncStream>();
    Prepare(options, stream->context);
    stream->reader = stub_->Generate(&stream->context, request);
    return stream;
  }

  std::shared_ptr<GenerateCall> StartGenerate(const v1::GenerateRequest& request,
                                              const CallOptions& options,
                                              std::shared_ptr<GenerateHandler> handler) override {
    auto call = std::make_shared<CallbackCall>(request, std::move(handler));
    Prepare(options, call->context);
    call->Start(*stub_, call);
    return call;
  }

  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request,
                                                const CallOptions& options) override {
    return Unary<v1::TokenizeResponse>(options, [&](auto* context, auto* response) {
      return stub_->Tokenize(context, request, response);
    });
  }
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request,
                                                    const CallOptions& options) override {
    return Unary<v1::DetokenizeResponse>(options, [&](auto* context, auto* response) {
      return stub_->Detokenize(context, request, response);
    });
  }
  absl::StatusOr<v1::ModelInfo> GetModelInfo(const v1::GetModelInfoRequest& request,
                                             const CallOptions& options) override {
    return Unary<v1::ModelInfo>(options, [&](auto* context, auto* response) {
      return stub_->GetModelInfo(context, request, response);
    });
  }
  absl::StatusOr<v1::ServerInfo> GetServerInfo(const CallOptions& options) override {
    return Unary<v1::ServerInfo>(options, [&](auto* context, auto* response) {
      return stub_->GetServerInfo(context, v1::GetServerInfoRequest(), response);
    });
  }

  absl::StatusOr<HealthState> CheckHealth(const std::string& service,
                                          const CallOptions& options) override {
    health::HealthCheckRequest request;
    request.set_service(service);
    absl::StatusOr<health::HealthCheckResponse> response = Unary<health::HealthCheckResponse>(
        options,
        [&](auto* context, auto* answer) { return health_stub_->Check(context, request, answer); });
    if (!response.ok()) return response.status();
    return FromProto(*response);
  }

  absl::Status WatchHealth(const std::string& service, const CallOptions& options,
                           const std::function<bool(HealthState)>& on_state) override {
    health::HealthCheckRequest request;
    request.set_service(service);
    grpc::ClientContext context;
    Prepare(options, context);
    const auto reader = health_stub_->Watch(&context, request);
    health::HealthCheckResponse response;
    while (reader->Read(&response)) {
      if (on_state(FromProto(response))) continue;
      context.TryCancel();
      while (reader->Read(&response)) {
      }
      reader->Finish();
      return absl::OkStatus();
    }
    return FromGrpc(reader->Finish());
  }

 private:
  void Prepare(const CallOptions& options, grpc::ClientContext& context) const {
    if (options.timeout.count() > 0) {
      context.set_deadline(std::chrono::system_clock::now() + options.timeout);
    }
    if (!authorization_.empty()) context.AddMetadata("authorization", authorization_);
    for (const auto& [key, value] : options.metadata) context.AddMetadata(key, value);
  }

  template <typename Response, typename Call>
  absl::StatusOr<Response> Unary(const CallOptions& options, const Call& call) const {
    grpc::ClientContext context;
    Prepare(options, context);
    Response response;
    absl::Status status = FromGrpc(call(&context, &response));
    if (!status.ok()) return status;
    return response;
  }

  const std::string target_;
  const std::string authorization_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Inference::Stub> stub_;
  const std::unique_ptr<health::Health::Stub> health_stub_;
};

}  // namespace

const char* HealthStateName(HealthState state) {
  switch (state) {
    case HealthState::kServing:
      return "SERVING";
    case HealthState::kNotServing:
      return "NOT_SERVING";
    case HealthState::kServiceUnknown:
      return "SERVICE_UNKNOWN";
    case HealthState::kUnknown:
      break;
  }
  return "UNKNOWN";
}

absl::Status GatehouseClient::Generate(
    const v1::GenerateRequest& request, const CallOptions& options,
    const std::function<bool(const v1::GenerateResponse&)>& on_event) {
  const std::unique_ptr<GenerateStream> stream = Generate(request, options);
  v1::GenerateResponse event;
  while (stream->Next(event)) {
    if (on_event(event)) continue;
    stream->Cancel();
    stream->Finish().IgnoreError();  // the stream may have ended by itself meanwhile
    return absl::CancelledError("cancelled by the reader");
  }
  return stream->Finish();
}

absl::StatusOr<std::unique_ptr<GatehouseClient>> GatehouseClient::Connect(
    const ClientOptions& options) {
  if (options.target.empty()) return absl::InvalidArgumentError("the target is empty");
  if (options.tls_cert_pem.empty() != options.tls_key_pem.empty()) {
    return absl::InvalidArgumentError(
        "mutual TLS needs a certificate and its key, not one of them");
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxReceiveBytes);
  arguments.SetInt("gatehouse.connection_idx", options.connection_idx);  // channels that differ in
                                                                         // arguments share nothing
  // http_proxy is set for the internet, and no_proxy often forgotten.
  if (IsLoopback(options.target)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (!options.tls_server_name.empty()) {
    arguments.SetSslTargetNameOverride(options.tls_server_name);
  }
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (options.use_tls) {
    credentials = grpc::SslCredentials({.pem_root_certs = options.tls_ca_pem,
                                        .pem_private_key = options.tls_key_pem,
                                        .pem_cert_chain = options.tls_cert_pem});
  }
  std::unique_ptr<GatehouseClient> client = std::make_unique<GrpcClient>(
      options, grpc::CreateCustomChannel(options.target, credentials, arguments));
  return client;
}

}  // namespace gatehouse
