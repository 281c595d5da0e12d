// What one rank sends, computes and gets back to carry out a layer's plan: a pure function. All
// ranks know the plan of all rows, so none has to ask what comes.
//
// A row goes once to each rank that computes one of its pairs. A pair's result comes back by
// itself, so that the sum can be by ascending expert id (rule R17) wherever experts lie.
//
//   rank 0 has rows 0 and 2; experts 0, 1 lie on rank 0, experts 2, 3 on rank 1
//   plan            e0: 0 2   e1: 1   e2: 0 1   e3: 2
//   rank 0 sends    to 0: rows 0 2          to 1: rows 0 2
//   rank 0 gets     from 0: rows 0 2        from 1: row 1        computes e0: 0 2  e1: 1
//   results         to 0: of (e0, 0) (e0, 2)     to 1: of (e1, 1)
//   results back    from 0: (e0, 0) (e0, 2)      from 1: (e2, 0) (e3, 2)
#pragma once

#include <cstdint>
#include <vector>

#include "engine/moe/expert_placement.h"
#include "engine/moe/route_plan.h"
#include "engine/moe/step_rows.h"

namespace gatehouse {

struct RankTraffic {
  std::vector<int32_t> sent_rows;       // own rows, by whom they go to, ascending
  std::vector<int32_t> sent_begin;      // [num_ranks + 1]
  std::vector<int32_t> received_begin;  // [num_ranks + 1] of the rows that come
  // What is computed here, of the rows that came (ExpertGroups).
  std::vector<int32_t> row_ids;
  std::vector<int32_t> expert_begin;  // [num_experts + 1]
  // Its results, by whom they go to, each in the order of the plan's pairs.
  std::vector<int32_t> result_ids;      // index into row_ids
  std::vector<int32_t> result_begin;    // [num_ranks + 1]
  std::vector<int32_t> returned_begin;  // [num_ranks + 1] of the results that come
  // What own rows are summed of (CombineArgs), of the results that came.
  std::vector<int32_t> token_begin;  // [own rows + 1]
  std::vector<int32_t> assignment_ids;
  std::vector<float> weights;
};

// `experts` says which rank holds which copies. Of several a pair takes its own rank's, else they
// take turns by row.
RankTraffic TrafficOf(const RoutePlan& plan, const StepRows& rows, const ExpertPlacement& experts,
                      int rank);

}  // namespace gatehouse
