// The settings of a route file (docs/routing.md) that bound routing, as values: of the cases of
// `route` and of the policies of `eval` and `simulate`.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "engine/lab/route_settings.h"
#include "engine/moe/expert_placement.h"
#include "engine/moe/routing_policy.h"

namespace gatehouse {

constexpr int64_t kMaxRouteExperts = 1 << 16;  // of a case: typing errors stop here
constexpr int64_t kMaxRouteDevices = 1 << 16;

// A fault sticks to the reader.
TokenMode ReadMode(RouteSettingsReader& reader, TokenMode fallback);
int ReadSize(RouteSettingsReader& reader, std::string_view name, int64_t fallback, int64_t most);
RoutingPolicy ReadRoutingPolicy(RouteSettingsReader& reader, int num_experts,
                                bool family_renormalises);
std::vector<float> ReadThresholds(RouteSettingsReader& reader, int num_experts);
ExpertPlacement ReadPlacement(RouteSettingsReader& reader, int num_experts);

absl::Status CheckThroughput(const ExpertPlacement& placement);

}  // namespace gatehouse
