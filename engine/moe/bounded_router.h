// Bounded routing: rules R3 and R7 to R18 of docs/routing.md, after LocMoE+ (arXiv 2406.00023:
// token choice, then expert choice by affinity, under a capacity) with reroute, device budgets and
// coverage on top. A pure function: no clock, no thread count, no history.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/moe/expert_placement.h"
#include "engine/moe/gate_scores.h"
#include "engine/moe/route_decision.h"
#include "engine/moe/routed_token.h"
#include "engine/moe/routing_policy.h"

namespace gatehouse {

// Memory for rows, one entry an expert and a device; kNoBound, or an empty list: no limit. Where
// there are limits, all placements speak of the same devices.
struct RowLimits {
  std::vector<int64_t> expert_rows;  // [num_experts] or empty
  std::vector<int64_t> device_rows;  // [num_devices] or empty
};

// A policy as it applies at one layer.
struct LayerPolicy {
  const RoutingPolicy* policy = nullptr;       // valid (ValidatePolicy)
  const ExpertPlacement* placement = nullptr;  // of the model's experts
  std::span<const float> thresholds;           // [num_experts] where tokens are in threshold mode
};

struct RoutingStep {
  const GateScores& scores;
  std::span<const RoutedToken> tokens;    // [num_rows]
  std::span<const LayerPolicy> policies;  // of tokens, by policy_idx; one a domain
  const ExpertPlacement& placement;       // of exact tokens under no policy
  const RowLimits& limits;
  int num_ranks = 1;
};

// INVALID_ARGUMENT where a token needs a setting that its policy lacks, names a policy, device or
// rank that there is none of, or shares a domain or block with a token of another policy.
absl::StatusOr<RouteDecision> RouteBounded(const RoutingStep& step);

}  // namespace gatehouse
