// One gRPC server on one address, with health, limits and, on loopback, reflection.
#pragma once

#include <grpcpp/server.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/limits.h"
#include "server/tls.h"

namespace gatehouse {

struct GrpcListener {
  std::unique_ptr<grpc::Server> server;
  std::string address;  // host:port as bound

  // What grpc.health.v1 says of "" and of the inference service.
  void SetServing(bool serving) const;
  // Calls that do not end by themselves within a moment are cancelled.
  void Close();
};

// `tls` null: no encryption. UNAVAILABLE when the address cannot be bound. Health says NOT_SERVING.
absl::StatusOr<GrpcListener> StartGrpcListener(const std::string& address, TlsCertificates* tls,
                                               const ServerLimits& limits, grpc::Service& service);

}  // namespace gatehouse
