// The operators' gRPC service: proto/gatehouse/v1/admin.proto. Owner: GatehouseServer; gRPC's
// threads call it, and its watches the server's watcher. Faults cannot be injected yet:
// UNIMPLEMENTED.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <functional>
#include <string>

#include "gatehouse/v1/admin.grpc.pb.h"
#include "server/admin_watch.h"
#include "server/describe.h"
#include "server/generate_call.h"
#include "server/rate_window.h"
#include "server/routing_control.h"

namespace gatehouse {

// All of it outlives the service.
struct AdminParts {
  const ServingState& state;
  PrometheusMetrics& metrics;
  Logger& logger;
  const Clock& clock;
  const RateWindow& rates;
  const LiveSet<GenerateCall>& active;
  const Tenants& operators;  // whose tokens open this service
  AdminWatches& watches;
  RoutingControl& routing;
  std::function<void(Duration)> request_drain;  // may be called again and again
};

class AdminService final : public v1::Admin::CallbackService {
 public:
  AdminService(AdminParts parts, const ServerFacts& facts, const ServerConfig& config);

  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const v1::GetStatusRequest* request,
                                      v1::ServerStatus* response) override;
  grpc::ServerWriteReactor<v1::ServerStatus>* WatchStatus(
      grpc::CallbackServerContext* context, const v1::WatchStatusRequest* request) override;
  grpc::ServerUnaryReactor* GetExpertLoad(grpc::CallbackServerContext* context,
                                          const v1::GetExpertLoadRequest* request,
                                          v1::ExpertLoad* response) override;
  grpc::ServerWriteReactor<v1::ExpertLoad>* WatchExpertLoad(
      grpc::CallbackServerContext* context, const v1::WatchExpertLoadRequest* request) override;
  grpc::ServerUnaryReactor* GetRequests(grpc::CallbackServerContext* context,
                                        const v1::GetRequestsRequest* request,
                                        v1::GetRequestsResponse* response) override;
  grpc::ServerUnaryReactor* CancelRequest(grpc::CallbackServerContext* context,
                                          const v1::CancelRequestRequest* request,
                                          v1::CancelRequestResponse* response) override;
  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context,
                                  const v1::DrainRequest* request,
                                  v1::DrainResponse* response) override;
  grpc::ServerUnaryReactor* SetLogLevel(grpc::CallbackServerContext* context,
                                        const v1::SetLogLevelRequest* request,
                                        v1::SetLogLevelResponse* response) override;

  grpc::ServerUnaryReactor* GetRoutingPolicy(grpc::CallbackServerContext* context,
                                             const v1::GetRoutingPolicyRequest* request,
                                             v1::RoutingPolicy* response) override;
  grpc::ServerUnaryReactor* SetRoutingPolicy(grpc::CallbackServerContext* context,
                                             const v1::SetRoutingPolicyRequest* request,
                                             v1::RoutingPolicy* response) override;
  grpc::ServerUnaryReactor* GetPlacement(grpc::CallbackServerContext* context,
                                         const v1::GetPlacementRequest* request,
                                         v1::Placement* response) override;
  grpc::ServerUnaryReactor* Rebalance(grpc::CallbackServerContext* context,
                                      const v1::RebalanceRequest* request,
                                      v1::RebalanceStatus* response) override;
  grpc::ServerWriteReactor<v1::RebalanceStatus>* WatchRebalance(
      grpc::CallbackServerContext* context, const v1::WatchRebalanceRequest* request) override;
  grpc::ServerUnaryReactor* InjectFault(grpc::CallbackServerContext* context,
                                        const v1::InjectFaultRequest* request,
                                        v1::InjectFaultResponse* response) override;

 private:
  absl::Status Enter(const grpc::CallbackServerContext& context) const;
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context,
                                   const std::function<absl::Status()>& work) const;
  v1::ServerStatus Status() const;
  v1::ExpertLoad Load(const Engine& engine,
                      const google::protobuf::RepeatedField<int32_t>& layers) const;

  const AdminParts parts_;
  const ServerFacts facts_;
  const ServerConfig config_;
  const TimePoint start_;
};

}  // namespace gatehouse
