#include "server/routing_control.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {

absl::Status RoutingControl::Start(const RoutingFacts& facts, v1::RoutingPolicy policy) {
  const MutexLock lock(mutex_);
  facts_.emplace(facts);
  policy.set_version(1);
  return Replace(std::move(policy));
}

absl::StatusOr<v1::RoutingPolicy> RoutingControl::Set(const v1::SetRoutingPolicyRequest& request) {
  const MutexLock lock(mutex_);
  if (!facts_.has_value()) {
    return absl::UnavailableError("the model is being loaded, no policy is taken yet");
  }
  if (!request.has_policy()) return absl::InvalidArgumentError("policy: not set");
  if (request.has_expected_version() && request.expected_version() != policy_.version()) {
    return absl::AbortedError(absl::StrFormat("expected_version: got %d, in force is %d",
                                              request.expected_version(), policy_.version()));
  }
  v1::RoutingPolicy policy = request.policy();
  policy.set_version(policy_.version() + 1);
  GATEHOUSE_RETURN_IF_ERROR(Replace(std::move(policy)));
  return policy_;
}

absl::Status RoutingControl::Replace(v1::RoutingPolicy policy) {
  GATEHOUSE_ASSIGN_OR_RETURN(RoutingTable table, ToRoutingTable(*facts_, policy));
  table_ = std::make_shared<const RoutingTable>(std::move(table));
  policy_ = std::move(policy);
  return absl::OkStatus();
}

std::shared_ptr<const RoutingTable> RoutingControl::Read() const {
  const MutexLock lock(mutex_);
  return table_;
}

v1::RoutingPolicy RoutingControl::policy() const {
  const MutexLock lock(mutex_);
  return policy_;
}

}  // namespace gatehouse
