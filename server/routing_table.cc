#include "server/routing_table.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace gatehouse {

absl::StatusOr<RoutingMode> ModeFor(const RoutingTable& table, const TenantPolicy& tenant,
                                    std::optional<RoutingMode> wanted) {
  const RoutingMode loosest = std::min(table.loosest_mode, tenant.loosest_mode);
  if (!wanted.has_value()) {
    return std::min(tenant.default_mode.value_or(table.default_mode), loosest);
  }
  if (*wanted <= loosest) return *wanted;
  return absl::PermissionDeniedError(
      absl::StrFormat("routing.mode: got %s, the loosest mode of tenant \"%s\" is %s",
                      RoutingModeName(*wanted), tenant.tenant->name, RoutingModeName(loosest)));
}

absl::Status Pin(const RoutingTable& table, RoutingMode mode, Request& request) {
  request.mode = mode;
  if (mode == RoutingMode::kExact) return absl::OkStatus();
  request.policy = mode == RoutingMode::kIsolated ? table.isolated : table.shared;
  if (request.policy != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrFormat("routing.mode: this server has no policy for mode %s: its operator "
                      "configures one as \"%s\" in "
                      "the file of --routing-config or by SetRoutingPolicy; mode exact needs none",
                      RoutingModeName(mode), RoutingModeName(mode)));
}

}  // namespace gatehouse
