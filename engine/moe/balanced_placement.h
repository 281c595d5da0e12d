// What EPLB leaves to improve: it packs greedily, and knows neither slow devices beside fast ones
// nor that a copy on a slow one can be worse than none. Pure functions; any thread.
#pragma once

#include "absl/status/statusor.h"
#include "engine/moe/eplb.h"
#include "engine/moe/expert_placement.h"

namespace gatehouse {

// `placement`, which keeps the terms of `problem`, changed step by step, as long as the busiest
// device gets less to do: each time the best of moving one of its experts to another device,
// exchanging it for one there, and giving up or adding a copy of it. Then the copies that are left
// go where they make no device the busiest. Nothing leaves its node. Ties go to the lower expert
// and device.
ExpertPlacement RefinePlacement(const PlacementProblem& problem, const ExpertPlacement& placement);

// The best of EPLB's placements, refined, with all, a half, a quarter, ... and none of the
// replicas: at most that many copies, fewer only where that gains 5%. Of 300 problems small enough
// to try every placement, its imbalance is on average 1.4% above the least (EPLB's 3.6%), on
// devices that differ 1.9% (10%). 256 experts on 64 devices take 0.01 s.
// Fails as EplbPlacement does.
absl::StatusOr<ExpertPlacement> BalancedPlacement(const PlacementProblem& problem);

}  // namespace gatehouse
