// Messages of proto/gatehouse/v1 to engine types and back. Pure, but for EventConverter; any
// thread.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "gatehouse/v1/inference.pb.h"
#include "server/routing_table.h"
#include "server/tenants.h"

namespace gatehouse {

// The engine's request, not yet validated against the model's limits: Engine::Submit does that.
// Tokenises text and pins the policy of its routing mode. INVALID_ARGUMENT "<field path>:
// <problem>", NOT_FOUND, PERMISSION_DENIED for a mode beyond the tenant's, FAILED_PRECONDITION for
// one without a policy. request.id stays empty when the client gave none; request.deadline is the
// caller's.
absl::StatusOr<Request> ToRequest(const v1::GenerateRequest& message, const TenantPolicy& policy,
                                  const RoutingTable& routing, const Engine& engine);

absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& message,
                                              const Engine& engine);
inline constexpr size_t kMaxRequestIdBytes = 128;
inline constexpr size_t kMaxCacheSaltBytes = 128;
// Far more than a context, and an answer of some hundred KiB: ids cost a byte, their texts many.
inline constexpr int kMaxDetokenizeIds = 1 << 16;
absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& message,
                                                  const Engine& engine);

// INVALID_ARGUMENT when it is too long or not printable; an empty one is none and fine.
absl::Status CheckRequestId(const std::string& id);

v1::GenerateRequest::Priority ToProto(Priority priority);
v1::Routing::Mode ToProto(RoutingMode mode);

// NOT_FOUND when a client names another model than the one served.
absl::Status CheckModelName(const std::string& name, const ModelDescription& model);

// Turns the events of one request into messages, in order; remembers what later events repeat.
class EventConverter {
 public:
  // Before the first Convert.
  void set_request_id(std::string request_id) { request_id_ = std::move(request_id); }
  void set_priority(Priority priority) { priority_ = priority; }
  void Convert(SinkEvent event, v1::GenerateResponse& response);

 private:
  std::string request_id_;
  Priority priority_ = Priority::kNormal;
  int32_t num_cached_prompt_tokens_ = 0;
};

// A deadline of gRPC's clock on the engine's.
TimePoint ToTimePoint(std::chrono::system_clock::time_point deadline, const Clock& clock);

}  // namespace gatehouse
