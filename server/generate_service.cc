#include "server/generate_service.h"

#include <random>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"
#include "server/grpc_status.h"

namespace gatehouse {

std::optional<std::string_view> AuthorizationOf(const grpc::CallbackServerContext& context) {
  const auto found = context.client_metadata().find("authorization");
  if (found == context.client_metadata().end()) return std::nullopt;
  return std::string_view(found->second.data(), found->second.size());
}

GenerateService::GenerateService(const CallParts& parts, const Tenants& tenants,
                                 const ServerFacts& facts, const ServerConfig& config)
    : parts_(parts),
      tenants_(tenants),
      facts_(facts),
      config_(config),
      id_prefix_(absl::StrFormat("%08x", std::random_device()())) {}

std::string GenerateService::MakeRequestId() {
  return absl::StrFormat("%s-%u", id_prefix_, ++num_requests_);
}

absl::StatusOr<std::shared_ptr<const TenantPolicy>> GenerateService::Enter(
    const grpc::CallbackServerContext& context) const {
  GATEHOUSE_ASSIGN_OR_RETURN(auto policy, tenants_.Authenticate(AuthorizationOf(context)));
  if (parts_.state.engine() == nullptr) return ServingState::LoadingError();
  return policy;
}

grpc::ServerWriteReactor<v1::GenerateResponse>* GenerateService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  auto policy = Enter(*context);
  absl::Status admission = policy.status();
  const auto call = std::make_shared<GenerateCall>(parts_, context, request, MakeRequestId(),
                                                   policy.ok() ? *std::move(policy) : nullptr);
  const auto max_open_calls = static_cast<size_t>(config_.limits.max_open_calls);
  if (!admission.ok()) {
    parts_.active.Add(call);
  } else if (!parts_.active.AddIfFewer(max_open_calls, call)) {
    parts_.active.Add(call);  // refused, and there until gRPC lets go of it
    admission = absl::ResourceExhaustedError(
        absl::StrFormat("%u calls are open, the limit", max_open_calls));
  }
  call->Start(admission);
  return call.get();  // active holds it until OnDone, which cannot come before this returns
}

grpc::Status GenerateService::Report(RpcMethod method, const absl::Status& status,
                                     std::optional<Duration> retry_after) {
  parts_.metrics.CountRequest(method, status.code());
  if (status.code() != absl::StatusCode::kInternal) return ToGrpcStatus(status, retry_after);
  const std::string id = MakeRequestId();
  parts_.logger.Log(LogLevel::kError, "request",
                    {{"id", id},
                     {"method", RpcMethodName(method)},
                     {"status", CodeName(status.code())},
                     {"reason", std::string(status.message())}});
  return ToGrpcStatus(InternalError(id));
}

grpc::ServerUnaryReactor* GenerateService::Unary(grpc::CallbackServerContext* context,
                                                 RpcMethod method, size_t num_bytes,
                                                 std::function<absl::Status(Engine&)> work) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const auto answer = [this, reactor, method](const absl::Status& status,
                                              std::optional<Duration> retry_after) {
    reactor->Finish(Report(method, status, retry_after));
  };
  const auto policy = Enter(*context);
  if (!policy.ok()) {
    const bool may_retry = absl::IsUnavailable(policy.status());
    answer(policy.status(),
           may_retry ? std::optional(RetryAfter(parts_.state, /*tenant=*/"")) : std::nullopt);
    return reactor;
  }
  const auto work_and_answer = [this, context, answer, work = std::move(work)] {
    // The context lives until the answer. Whoever has left while the task waited gets no work done.
    answer(context->IsCancelled() ? absl::CancelledError("the client cancelled the call")
                                  : work(*parts_.state.engine()),
           {});
  };
  if (num_bytes <= kMaxInlineBytes) {
    work_and_answer();
  } else {
    const std::string& tenant = (*policy)->tenant->name;
    const absl::Status waits = parts_.front.Run(tenant, num_bytes, work_and_answer);
    if (!waits.ok()) answer(waits, RetryAfter(parts_.state, tenant));
  }
  return reactor;
}

grpc::ServerUnaryReactor* GenerateService::Tokenize(grpc::CallbackServerContext* context,
                                                    const v1::TokenizeRequest* request,
                                                    v1::TokenizeResponse* response) {
  return Unary(context, RpcMethod::kTokenize, request->ByteSizeLong(),
               [=](Engine& engine) -> absl::Status {
                 GATEHOUSE_ASSIGN_OR_RETURN(*response, gatehouse::Tokenize(*request, engine));
                 return absl::OkStatus();
               });
}

grpc::ServerUnaryReactor* GenerateService::Detokenize(grpc::CallbackServerContext* context,
                                                      const v1::DetokenizeRequest* request,
                                                      v1::DetokenizeResponse* response) {
  return Unary(context, RpcMethod::kDetokenize, request->ByteSizeLong(),
               [=](Engine& engine) -> absl::Status {
                 GATEHOUSE_ASSIGN_OR_RETURN(*response, gatehouse::Detokenize(*request, engine));
                 return absl::OkStatus();
               });
}

grpc::ServerUnaryReactor* GenerateService::GetModelInfo(grpc::CallbackServerContext* context,
                                                        const v1::GetModelInfoRequest* request,
                                                        v1::ModelInfo* response) {
  return Unary(context, RpcMethod::kGetModelInfo, 0, [=](Engine& engine) -> absl::Status {
    GATEHOUSE_RETURN_IF_ERROR(CheckModelName(request->model(), engine.model()));
    *response = ToModelInfo(engine.model());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* GenerateService::GetServerInfo(grpc::CallbackServerContext* context,
                                                         const v1::GetServerInfoRequest*,
                                                         v1::ServerInfo* response) {
  return Unary(context, RpcMethod::kGetServerInfo, 0, [=, this](Engine& engine) {
    *response = ToServerInfo(facts_, config_, engine);
    return absl::OkStatus();
  });
}

}  // namespace gatehouse
