// From choices and decisions to a plan: pure functions, between the gate and the dispatcher.
#pragma once

#include "engine/moe/gate.h"
#include "engine/moe/gate_scores.h"
#include "engine/moe/route_decision.h"
#include "engine/moe/route_plan.h"

namespace gatehouse {

// Every pair of every row that did not fail.
//
//   choices  row 0: e2 e0   row 1: e0 e1        (slot order)
//   expert_begin 0 2 3 4    row_ids 0 1 | 1 | 0                 by expert, rows ascending
//   token_begin  0 2 4      assignment_ids 0 3 | 1 2            by row, experts ascending: e0 e2 |
//   e0 e1
RoutePlan RouteExact(const GateChoice& choice);

// What was decided, with the fates of all pairs.
RoutePlan PlanOf(const RouteDecision& decision, const GateScores& scores);

}  // namespace gatehouse
