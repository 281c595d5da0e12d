// From choices to a plan: pure functions, one a routing mode. Exact mode computes every chosen
// pair; bounded modes will decide here, between the gate and the dispatcher, which pairs give way.
#pragma once

#include "engine/moe/gate.h"
#include "engine/moe/route_plan.h"

namespace gatehouse {

// Every pair of every row that did not fail.
//
//   choices  row 0: e2 e0   row 1: e0 e1        (slot order)
//   expert_begin 0 2 3 4    row_ids 0 1 | 1 | 0                 by expert, rows ascending
//   token_begin  0 2 4      assignment_ids 0 3 | 1 2            by row, experts ascending: e0 e2 |
//   e0 e1
RoutePlan RouteExact(const GateChoice& choice);

}  // namespace gatehouse
