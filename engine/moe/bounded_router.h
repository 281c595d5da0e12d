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
#include "engine/moe/routing_policy.h"

namespace gatehouse {

// What routing knows of a row besides its scores.
struct RoutedToken {
  TokenMode mode = TokenMode::kExact;
  bool padding = false;     // neither read nor counted
  int64_t request = 0;      // a row that fails takes its request with it
  int64_t position = 0;     // in the request, >= 0
  int32_t domain = 0;       // of a shared token; never two trust groups in one
  int32_t home_device = 0;  // that owns the token
  int32_t rank = 0;         // that owns the token, where ranks count for themselves
  uint64_t tie_key = 0;     // kappa: a keyed hash of request, sample and position
};

// Memory for rows, one entry an expert and a device; kNoBound: no limit.
struct RowLimits {
  std::vector<int64_t> expert_rows;  // [num_experts]
  std::vector<int64_t> device_rows;  // [num_devices]
};

struct RoutingStep {
  const GateScores& scores;
  std::span<const RoutedToken> tokens;  // [num_rows]
  const RoutingPolicy& policy;          // valid (ValidatePolicy)
  const ExpertPlacement& placement;
  const RowLimits& limits;
  int num_ranks = 1;
};

// INVALID_ARGUMENT where a token needs a setting that the policy lacks, or names a device or rank
// that there is none of.
absl::StatusOr<RouteDecision> RouteBounded(const RoutingStep& step);

}  // namespace gatehouse
