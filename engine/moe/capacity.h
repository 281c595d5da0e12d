// Rules R2 and R9 to R11 of docs/routing.md: from counts to places. Pure functions; fp64
// throughout.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/moe/expert_placement.h"
#include "engine/moe/route_decision.h"
#include "engine/moe/routing_policy.h"

namespace gatehouse {

// R2: the nearest integer where x lies within 1e-9 * max(1, |x|) of it, else the next above.
// Saturates at kNoBound; x is not NaN.
int64_t CeilNear(double x);

// What the bounds of one domain are made of.
struct DomainLoad {
  int64_t num_tokens = 0;
  int64_t num_pairs = 0;
  // Looked at by the off switch only: of the whole domain where ranks count for themselves.
  int64_t switch_tokens = 0;
  int64_t switch_pairs = 0;
};

// Of an expert, and what decided it.
struct Places {
  int64_t count = kNoBound;
  BoundCause cause = BoundCause::kNone;
};

// R9: places of every expert; kNoBound: no ceiling.
Places ExpertCeiling(const CapacityPolicy& policy, const DomainLoad& load, int num_experts);

// R10: what one expert may keep. `affinities` are those of its pairs, descending.
Places ExpertFloor(const CapacityPolicy& policy, std::span<const float> affinities, int64_t ceiling,
                   int64_t num_tokens, int num_experts);

// R11. `rows` are kNoBound or what memory is left for.
Places ExpertPlaces(const CapacityPolicy& policy, Places ceiling, Places floor, int64_t rows);
std::vector<int64_t> DeviceBudgets(const CapacityPolicy& policy, const ExpertPlacement& placement,
                                   int64_t num_pairs, std::span<const int64_t> rows);

}  // namespace gatehouse
