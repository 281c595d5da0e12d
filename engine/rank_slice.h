// A step's plan, cut into what each rank runs: pure functions. A rank gets the spans whose blocks
// are in its cache; rows keep their order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/moe/step_rows.h"
#include "engine/scheduler/step_plan.h"
#include "kernels/backend.h"

namespace gatehouse {

struct RankSlice {
  std::vector<int32_t> token_ids;   // [own rows]
  std::vector<int32_t> positions;   // [own rows]
  std::vector<SequenceSpan> spans;  // over own rows
  std::vector<int32_t> logit_rows;  // own rows whose logits are wanted
  std::vector<int32_t> logit_ids;   // which of the plan's logit_rows these are

  BatchLayout layout() const { return {token_ids, positions, spans}; }
};

StepRows RowsOf(const StepPlan& plan, int num_ranks);
// [num_ranks]; the block tables stay the plan's.
std::vector<RankSlice> SliceByRank(const StepPlan& plan, const StepRows& rows);

}  // namespace gatehouse
