#include "client/admin_client.h"

#include "client/channel.h"
#include "gatehouse/v1/admin.grpc.pb.h"

namespace gatehouse {
namespace {

class GrpcAdminClient final : public AdminClient {
 public:
  GrpcAdminClient(const ClientOptions& options, std::shared_ptr<grpc::Channel> channel)
      : authorization_(AuthorizationOf(options)),
        channel_(std::move(channel)),
        stub_(v1::Admin::NewStub(channel_)) {}

  bool reachable() override { return channel_->GetState(false) != GRPC_CHANNEL_TRANSIENT_FAILURE; }

  absl::StatusOr<v1::ServerStatus> GetStatus(const CallOptions& options) override {
    return Call<v1::ServerStatus>(&v1::Admin::Stub::GetStatus, v1::GetStatusRequest(), options);
  }
  absl::Status WatchStatus(const v1::WatchStatusRequest& request, const CallOptions& options,
                           const std::function<bool(const v1::ServerStatus&)>& on_status) override {
    grpc::ClientContext context;
    AddMetadata(authorization_, options, context);
    SetDeadline(options, context);
    const auto reader = stub_->WatchStatus(&context, request);
    return ReadWhile<v1::ServerStatus>(context, *reader, on_status);
  }
  absl::StatusOr<v1::ExpertLoad> GetExpertLoad(const v1::GetExpertLoadRequest& request,
                                               const CallOptions& options) override {
    return Call<v1::ExpertLoad>(&v1::Admin::Stub::GetExpertLoad, request, options);
  }
  absl::StatusOr<v1::Placement> GetPlacement(const v1::GetPlacementRequest& request,
                                             const CallOptions& options) override {
    return Call<v1::Placement>(&v1::Admin::Stub::GetPlacement, request, options);
  }
  absl::StatusOr<v1::RebalanceStatus> Rebalance(const v1::RebalanceRequest& request,
                                                const CallOptions& options) override {
    return Call<v1::RebalanceStatus>(&v1::Admin::Stub::Rebalance, request, options);
  }
  absl::Status WatchRebalance(
      const v1::WatchRebalanceRequest& request, const CallOptions& options,
      const std::function<bool(const v1::RebalanceStatus&)>& on_status) override {
    grpc::ClientContext context;
    AddMetadata(authorization_, options, context);
    SetDeadline(options, context);
    const auto reader = stub_->WatchRebalance(&context, request);
    return ReadWhile<v1::RebalanceStatus>(context, *reader, on_status);
  }
  absl::StatusOr<v1::GetRequestsResponse> GetRequests(const v1::GetRequestsRequest& request,
                                                      const CallOptions& options) override {
    return Call<v1::GetRequestsResponse>(&v1::Admin::Stub::GetRequests, request, options);
  }
  absl::StatusOr<v1::CancelRequestResponse> CancelRequest(const v1::CancelRequestRequest& request,
                                                          const CallOptions& options) override {
    return Call<v1::CancelRequestResponse>(&v1::Admin::Stub::CancelRequest, request, options);
  }
  absl::StatusOr<v1::DrainResponse> Drain(const v1::DrainRequest& request,
                                          const CallOptions& options) override {
    return Call<v1::DrainResponse>(&v1::Admin::Stub::Drain, request, options);
  }
  absl::StatusOr<v1::InjectFaultResponse> InjectFault(const v1::InjectFaultRequest& request,
                                                      const CallOptions& options) override {
    return Call<v1::InjectFaultResponse>(&v1::Admin::Stub::InjectFault, request, options);
  }
  absl::StatusOr<v1::SetLogLevelResponse> SetLogLevel(const v1::SetLogLevelRequest& request,
                                                      const CallOptions& options) override {
    return Call<v1::SetLogLevelResponse>(&v1::Admin::Stub::SetLogLevel, request, options);
  }
  absl::StatusOr<v1::RoutingPolicy> GetRoutingPolicy(const CallOptions& options) override {
    return Call<v1::RoutingPolicy>(&v1::Admin::Stub::GetRoutingPolicy,
                                   v1::GetRoutingPolicyRequest(), options);
  }
  absl::StatusOr<v1::RoutingPolicy> SetRoutingPolicy(const v1::SetRoutingPolicyRequest& request,
                                                     const CallOptions& options) override {
    return Call<v1::RoutingPolicy>(&v1::Admin::Stub::SetRoutingPolicy, request, options);
  }

 private:
  template <typename Response, typename Request>
  absl::StatusOr<Response> Call(grpc::Status (v1::Admin::Stub::*method)(grpc::ClientContext*,
                                                                        const Request&, Response*),
                                const Request& request, const CallOptions& options) const {
    grpc::ClientContext context;
    AddMetadata(authorization_, options, context);
    SetDeadline(options, context);
    Response response;
    absl::Status status = FromGrpc((stub_.get()->*method)(&context, request, &response));
    if (!status.ok()) return status;
    return response;
  }

  const std::string authorization_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Admin::Stub> stub_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<AdminClient>> AdminClient::Connect(const ClientOptions& options) {
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = MakeChannel(options);
  if (!channel.ok()) return channel.status();
  std::unique_ptr<AdminClient> client =
      std::make_unique<GrpcAdminClient>(options, *std::move(channel));
  return client;
}

}  // namespace gatehouse
