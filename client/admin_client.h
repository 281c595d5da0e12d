// The C++ client of the operators' service (the listener --admin-listen of a server).
//
// AdminClient is made once for a target and shared by any number of threads. Connecting is lazy.
// Every failure is an absl::Status with the server's code and text (client/rpc_error.h reads the
// details). Nothing is tried again: an operator wants to know how it stands now. Hence
// ClientOptions.retry is not used.
//
//   auto client = gatehouse::AdminClient::Connect({.target = "127.0.0.1:50052"});
//   const auto status = (*client)->GetStatus({.timeout = std::chrono::seconds(2)});
#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/client_options.h"
#include "gatehouse/v1/admin.pb.h"

namespace gatehouse {

class AdminClient {
 public:
  // INVALID_ARGUMENT as GatehouseClient::Connect.
  static absl::StatusOr<std::unique_ptr<AdminClient>> Connect(const ClientOptions& options);
  virtual ~AdminClient() = default;

  // True unless a try to connect has failed and none has worked since.
  virtual bool reachable() = 0;

  virtual absl::StatusOr<v1::ServerStatus> GetStatus(const CallOptions& options) = 0;
  // Calls `on_status` in the calling thread for each message; ends OK when it returns false.
  virtual absl::Status WatchStatus(
      const v1::WatchStatusRequest& request, const CallOptions& options,
      const std::function<bool(const v1::ServerStatus&)>& on_status) = 0;
  virtual absl::StatusOr<v1::ExpertLoad> GetExpertLoad(const v1::GetExpertLoadRequest& request,
                                                       const CallOptions& options) = 0;
  virtual absl::StatusOr<v1::Placement> GetPlacement(const v1::GetPlacementRequest& request,
                                                     const CallOptions& options) = 0;
  virtual absl::StatusOr<v1::RebalanceStatus> Rebalance(const v1::RebalanceRequest& request,
                                                        const CallOptions& options) = 0;
  // As WatchStatus.
  virtual absl::Status WatchRebalance(
      const v1::WatchRebalanceRequest& request, const CallOptions& options,
      const std::function<bool(const v1::RebalanceStatus&)>& on_status) = 0;
  virtual absl::StatusOr<v1::GetRequestsResponse> GetRequests(const v1::GetRequestsRequest& request,
                                                              const CallOptions& options) = 0;
  virtual absl::StatusOr<v1::CancelRequestResponse> CancelRequest(
      const v1::CancelRequestRequest& request, const CallOptions& options) = 0;
  virtual absl::StatusOr<v1::DrainResponse> Drain(const v1::DrainRequest& request,
                                                  const CallOptions& options) = 0;
  virtual absl::StatusOr<v1::SetLogLevelResponse> SetLogLevel(const v1::SetLogLevelRequest& request,
                                                              const CallOptions& options) = 0;
  virtual absl::StatusOr<v1::RoutingPolicy> GetRoutingPolicy(const CallOptions& options) = 0;
  virtual absl::StatusOr<v1::InjectFaultResponse> InjectFault(const v1::InjectFaultRequest& request,
                                                              const CallOptions& options) = 0;
  virtual absl::StatusOr<v1::RoutingPolicy> SetRoutingPolicy(
      const v1::SetRoutingPolicyRequest& request, const CallOptions& options) = 0;
};

}  // namespace gatehouse
