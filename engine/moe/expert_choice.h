// Expert choice (arXiv 2202.09368): every expert takes its best tokens of a domain. Not causal, so
// no server offers it; the workbench does.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "engine/moe/bounded_router.h"

namespace gatehouse {

// Adds to `chosen` for each of `rows` the ranks of the experts that took it, which become its slots
// by descending affinity. All experts are ranked in step.scores.
void ChooseTokensByExpert(const RoutingStep& step, const RoutingPolicy& policy,
                          std::span<const int32_t> rows,
                          std::map<int32_t, std::vector<int32_t>>& chosen);

}  // namespace gatehouse
