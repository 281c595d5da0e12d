// The routing policy in force, as operators see it and as requests are admitted under. Owner:
// GatehouseServer; any thread.
//
//   control.Start(facts, policy_of_the_file);     // once, before the first request
//   auto table = control.Read();                  // of one request
//   auto in_force = control.Set(request);         // of an operator
#pragma once

#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "gatehouse/v1/admin.pb.h"
#include "kernels/base/mutex.h"
#include "server/routing_policy_convert.h"

namespace gatehouse {

class RoutingControl {
 public:
  // As ToRoutingTable; `facts` stays valid as long as the control. Version 1.
  absl::Status Start(const RoutingFacts& facts, v1::RoutingPolicy policy)
      GATEHOUSE_EXCLUDES(mutex_);
  // The next version; what cannot be used changes nothing. UNAVAILABLE before Start, ABORTED when
  // another version than the expected one is in force.
  absl::StatusOr<v1::RoutingPolicy> Set(const v1::SetRoutingPolicyRequest& request)
      GATEHOUSE_EXCLUDES(mutex_);

  std::shared_ptr<const RoutingTable> Read() const GATEHOUSE_EXCLUDES(mutex_);
  v1::RoutingPolicy policy() const GATEHOUSE_EXCLUDES(mutex_);

 private:
  absl::Status Replace(v1::RoutingPolicy policy) GATEHOUSE_REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::optional<RoutingFacts> facts_ GATEHOUSE_GUARDED_BY(mutex_);
  v1::RoutingPolicy policy_ GATEHOUSE_GUARDED_BY(mutex_);
  std::shared_ptr<const RoutingTable> table_ GATEHOUSE_GUARDED_BY(mutex_) =
      std::make_shared<const RoutingTable>();
};

}  // namespace gatehouse
