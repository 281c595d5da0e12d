// R3 and R18 of docs/routing.md: which rows of a step are decided together. A value; made once a
// decision.
#pragma once

#include <cstdint>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/moe/bounded_router.h"

namespace gatehouse {

// Rows under one policy.
struct Pool {
  int32_t policy_idx = -1;
  std::vector<int32_t> rows;  // ascending
};

// In the order in which they are decided.
struct StepPools {
  std::vector<int32_t> failed_rows;   // ascending: every row of a request that has one
  std::map<int32_t, Pool> unbounded;  // exact and threshold, by policy
  std::map<std::tuple<int64_t, int64_t, bool>, Pool> blocks;  // by request, block, causal
  std::map<std::pair<int32_t, int32_t>, Pool> shared;         // by domain, rank
};

// INVALID_ARGUMENT as RouteBounded says.
absl::StatusOr<StepPools> GatherPools(const RoutingStep& step);

}  // namespace gatehouse
