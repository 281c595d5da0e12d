// One version of how requests may be bounded. Made when a policy is set and never changed: a
// request keeps the version that it was admitted under, by shared pointer, to its end.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/moe/expert_placement.h"
#include "engine/moe/routing_policy.h"

namespace gatehouse {

struct PinnedPolicy {
  int64_t version = 0;
  std::string name;                     // as reported
  TokenMode mode = TokenMode::kShared;  // of the tokens that are bounded; not kExact
  RoutingPolicy policy;                 // valid (ValidatePolicy)
  Affinity affinity = Affinity::kGate;
  ExpertPlacement placement;  // devices may be virtual
  // By index of the MoE layer:
  std::vector<RoutingPolicy> layer_policies;   // [num_moe_layers] `policy` but for the theory floor
                                               // of each; empty: `policy` everywhere
  std::vector<uint8_t> layer_exempt;           // [num_moe_layers] 1: routed exactly there
  std::vector<std::vector<float>> thresholds;  // [num_moe_layers][num_experts]; threshold mode only
  bool bound_decode = false;
};

}  // namespace gatehouse
