// The public gRPC service: one line a call. Owner: GatehouseServer; gRPC's threads call it. Every
// call passes the same door: the model is there, the caller is known, the server is not full.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "gatehouse/v1/inference.grpc.pb.h"
#include "server/describe.h"
#include "server/generate_call.h"

namespace gatehouse {

class GenerateService final : public v1::Inference::CallbackService {
 public:
  // `tenants` and what `parts` refers to outlive the service.
  GenerateService(const CallParts& parts, const Tenants& tenants, const ServerFacts& facts,
                  const ServerConfig& config);

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const v1::GetModelInfoRequest* request,
                                         v1::ModelInfo* response) override;
  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context,
                                          const v1::GetServerInfoRequest* request,
                                          v1::ServerInfo* response) override;

 private:
  std::string MakeRequestId();
  // UNAVAILABLE while loading, UNAUTHENTICATED.
  absl::StatusOr<std::shared_ptr<const TenantPolicy>> Enter(
      const grpc::CallbackServerContext& context) const;
  // Runs `work` here or, if it has many bytes to work on, in the front pool.
  grpc::ServerUnaryReactor* Unary(grpc::CallbackServerContext* context, RpcMethod method,
                                  size_t num_bytes, std::function<absl::Status(Engine&)> work);
  grpc::Status Report(RpcMethod method, const absl::Status& status,
                      std::optional<Duration> retry_after);

  const CallParts parts_;
  const Tenants& tenants_;
  const ServerFacts facts_;
  const ServerConfig config_;
  const std::string id_prefix_;  // tells this run of the server from others
  std::atomic<uint64_t> num_requests_ = 0;
};

// The `authorization` metadata of a call.
std::optional<std::string_view> AuthorizationOf(const grpc::CallbackServerContext& context);

}  // namespace gatehouse
