#include "server/grpc_listener.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/resource_quota.h>

#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "server/server_config.h"

namespace gatehouse {
namespace {

constexpr char kServiceName[] = "gatehouse.v1.Inference";
// gRPC's Shutdown waits this long for calls that end by themselves; only health watches are left.
constexpr auto kShutdownGrace = std::chrono::milliseconds(50);

// The library of reflection registers itself with every server of a process that it is linked to.
class WithoutReflection final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    plugins->clear();  // there is no other
  }
};

}  // namespace

void GrpcListener::SetServing(bool serving) const {
  grpc::HealthCheckServiceInterface* health = server->GetHealthCheckService();
  health->SetServingStatus("", serving);
  health->SetServingStatus(kServiceName, serving);
}

void GrpcListener::Close() {
  if (server == nullptr) return;
  server->Shutdown(std::chrono::system_clock::now() + kShutdownGrace);
  server->Wait();
  server = nullptr;
}

absl::StatusOr<GrpcListener> StartGrpcListener(const std::string& address, TlsCertificates* tls,
                                               const ServerLimits& limits, grpc::Service& service) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();  // so that it is linked to
  grpc::ServerBuilder builder;
  if (!IsLoopback(address)) builder.SetOption(std::make_unique<WithoutReflection>());
  int port = 0;
  builder.AddListeningPort(
      address, tls != nullptr ? tls->ServerCredentials() : grpc::InsecureServerCredentials(),
      &port);
  builder.RegisterService(&service);
  // Of what has arrived and is no message yet: nobody has shown a token for it.
  grpc::ResourceQuota quota("listener");
  quota.Resize(limits.max_connection_bytes);
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(static_cast<int>(limits.max_request_bytes));
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE,
                             static_cast<int>(limits.max_metadata_bytes));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, limits.max_streams_per_connection);
  // Without it a second server on the same port starts silently and takes half of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  if (limits.max_connection_age_seconds > 0) {
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS,
                               static_cast<int>(limits.max_connection_age_seconds * 1000));
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                               static_cast<int>(limits.max_connection_grace_seconds * 1000));
  }
  // A client whose machine is gone sends no FIN: ask, so that its requests end within a minute.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  GrpcListener listener;
  listener.server = builder.BuildAndStart();
  if (listener.server == nullptr || port == 0) {
    return absl::UnavailableError(absl::StrFormat(
        "cannot listen on %s: the port is taken or the address is not this machine's", address));
  }
  listener.SetServing(false);
  listener.address = absl::StrFormat("%s:%d", address.substr(0, address.rfind(':')), port);
  return listener;
}

}  // namespace gatehouse
