#include "client/gatehouse_client.h"

#include <thread>

#include "absl/strings/str_format.h"
#include "client/channel.h"
#include "client/generate_streams.h"
#include "client/retry.h"
#include "gatehouse/v1/inference.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace gatehouse {
namespace {

namespace health = ::grpc::health::v1;

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

class GrpcClient final : public GatehouseClient {
 public:
  GrpcClient(const ClientOptions& options, std::shared_ptr<grpc::Channel> channel)
      : target_(options.target),
        authorization_(AuthorizationOf(options)),
        retry_(options.retry),
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
    return MakeGenerateStream(SetupOf(request, options));
  }

  std::shared_ptr<GenerateCall> StartGenerate(const v1::GenerateRequest& request,
                                              const CallOptions& options,
                                              std::shared_ptr<GenerateHandler> handler) override {
    return MakeGenerateCall(SetupOf(request, options), std::move(handler));
  }

  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request,
                                                const CallOptions& options) override {
    return Call<v1::TokenizeResponse>(options, [&](auto* context, auto* response) {
      return stub_->Tokenize(context, request, response);
    });
  }
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request,
                                                    const CallOptions& options) override {
    return Call<v1::DetokenizeResponse>(options, [&](auto* context, auto* response) {
      return stub_->Detokenize(context, request, response);
    });
  }
  absl::StatusOr<v1::ModelInfo> GetModelInfo(const v1::GetModelInfoRequest& request,
                                             const CallOptions& options) override {
    return Call<v1::ModelInfo>(options, [&](auto* context, auto* response) {
      return stub_->GetModelInfo(context, request, response);
    });
  }
  absl::StatusOr<v1::ServerInfo> GetServerInfo(const CallOptions& options) override {
    return Call<v1::ServerInfo>(options, [&](auto* context, auto* response) {
      return stub_->GetServerInfo(context, v1::GetServerInfoRequest(), response);
    });
  }

  absl::StatusOr<HealthState> CheckHealth(const std::string& service,
                                          const CallOptions& options) override {
    health::HealthCheckRequest request;
    request.set_service(service);
    grpc::ClientContext context;
    AddMetadata(authorization_, options, context);
    SetDeadline(options, context);
    health::HealthCheckResponse response;
    absl::Status status = FromGrpc(health_stub_->Check(&context, request, &response));
    if (!status.ok()) return status;
    return FromProto(response);
  }

  absl::Status WatchHealth(const std::string& service, const CallOptions& options,
                           const std::function<bool(HealthState)>& on_state) override {
    health::HealthCheckRequest request;
    request.set_service(service);
    grpc::ClientContext context;
    AddMetadata(authorization_, options, context);
    SetDeadline(options, context);
    const auto reader = health_stub_->Watch(&context, request);
    return ReadWhile<health::HealthCheckResponse>(
        context, *reader, [&](const auto& response) { return on_state(FromProto(response)); });
  }

 private:
  GenerateSetup SetupOf(const v1::GenerateRequest& request, const CallOptions& options) const {
    return {.stub = stub_.get(),
            .request = request,
            .options = options,
            .authorization = authorization_,
            .retry = retry_};
  }

  // One answer, or the error of the last try.
  template <typename Response, typename Method>
  absl::StatusOr<Response> Call(const CallOptions& options, const Method& method) const {
    for (Tries tries(retry_, options);;) {
      grpc::ClientContext context;
      AddMetadata(authorization_, options, context);
      if (tries.deadline().has_value()) context.set_deadline(*tries.deadline());
      Response response;
      absl::Status status = FromGrpc(method(&context, &response));
      if (status.ok()) return response;
      const auto delay = tries.Next(status);
      if (!delay.has_value()) return status;
      std::this_thread::sleep_for(*delay);
    }
  }

  const std::string target_;
  const std::string authorization_;
  const RetryPolicy retry_;
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
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = MakeChannel(options);
  if (!channel.ok()) return channel.status();
  std::unique_ptr<GatehouseClient> client =
      std::make_unique<GrpcClient>(options, *std::move(channel));
  return client;
}

}  // namespace gatehouse
