// The modes of routing that the server offers now, and what requests of each are pinned to. A
// value, replaced as a whole when an operator sets another policy. Free of protobuf.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/moe/pinned_policy.h"
#include "engine/request/request.h"
#include "server/tenants.h"

namespace gatehouse {

struct RoutingTable {
  int64_t version = 0;
  RoutingMode default_mode = RoutingMode::kExact;
  RoutingMode loosest_mode = RoutingMode::kShared;  // of any tenant
  std::shared_ptr<const PinnedPolicy> isolated;     // null: not served
  std::shared_ptr<const PinnedPolicy> shared;
};

// The mode of a request that asks for `wanted`, or for none: its tenant's default then, else the
// server's as far as the tenant may go. PERMISSION_DENIED beyond what tenant or server allow.
absl::StatusOr<RoutingMode> ModeFor(const RoutingTable& table, const TenantPolicy& tenant,
                                    std::optional<RoutingMode> wanted);

// FAILED_PRECONDITION, saying what to configure, where the mode has no policy.
absl::Status Pin(const RoutingTable& table, RoutingMode mode, Request& request);

}  // namespace gatehouse
