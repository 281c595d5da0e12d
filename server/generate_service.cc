#include "server/generate_service.h"

#include <memory>
#include <random>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {

GenerateService::GenerateService(const CallParts& parts, v1::ServerInfo server_info)
    : parts_(parts),
      server_info_(std::move(server_info)),
      id_prefix_(absl::StrFormat("%08x", std::random_device()())) {}

std::string GenerateService::MakeRequestId() {
  return absl::StrFormat("%s-%u", id_prefix_, ++num_requests_);
}

grpc::ServerWriteReactor<v1::GenerateResponse>* GenerateService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  const auto call = std::make_shared<GenerateCall>(parts_, context, request, MakeRequestId());
  parts_.active.Add(call);
  call->Start();
  return call.get();  // active holds it until OnDone, which cannot come before this returns
}

grpc::ServerUnaryReactor* GenerateService::Unary(grpc::CallbackServerContext* context,
                                                 RpcMethod method, size_t num_bytes,
                                                 std::function<absl::Status()> work) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const auto answer = [this, reactor, method](const absl::Status& status,
                                              std::optional<Duration> retry_after) {
    parts_.metrics.CountRequest(method, status.code());
    reactor->Finish(ToGrpcStatus(status, retry_after));
  };
  const auto work_and_answer = [context, answer, work = std::move(work)] {
    // The context lives until the answer. Whoever has left while the task waited gets no work done.
    answer(context->IsCancelled() ? absl::CancelledError("the client cancelled the call") : work(),
           {});
  };
  if (num_bytes <= kMaxInlineBytes) {
    work_and_answer();
  } else if (!parts_.front.Run(num_bytes, work_and_answer)) {
    answer(absl::ResourceExhaustedError("too many long texts wait to be tokenised"),
           parts_.engine.RetryAfter());
  }
  return reactor;
}

grpc::ServerUnaryReactor* GenerateService::Tokenize(grpc::CallbackServerContext* context,
                                                    const v1::TokenizeRequest* request,
                                                    v1::TokenizeResponse* response) {
  return Unary(context, RpcMethod::kTokenize, request->ByteSizeLong(), [=, this]() -> absl::Status {
    GATEHOUSE_ASSIGN_OR_RETURN(*response, gatehouse::Tokenize(*request, parts_.engine));
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* GenerateService::Detokenize(grpc::CallbackServerContext* context,
                                                      const v1::DetokenizeRequest* request,
                                                      v1::DetokenizeResponse* response) {
  return Unary(
      context, RpcMethod::kDetokenize, request->ByteSizeLong(), [=, this]() -> absl::Status {
        GATEHOUSE_ASSIGN_OR_RETURN(*response, gatehouse::Detokenize(*request, parts_.engine));
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* GenerateService::GetModelInfo(grpc::CallbackServerContext* context,
                                                        const v1::GetModelInfoRequest* request,
                                                        v1::ModelInfo* response) {
  return Unary(context, RpcMethod::kGetModelInfo, 0, [=, this]() -> absl::Status {
    GATEHOUSE_RETURN_IF_ERROR(CheckModelName(request->model(), parts_.engine.model()));
    *response = ToModelInfo(parts_.engine.model());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* GenerateService::GetServerInfo(grpc::CallbackServerContext* context,
                                                         const v1::GetServerInfoRequest*,
                                                         v1::ServerInfo* response) {
  return Unary(context, RpcMethod::kGetServerInfo, 0, [=, this] {
    *response = server_info_;
    return absl::OkStatus();
  });
}

}  // namespace gatehouse
