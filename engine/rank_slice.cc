#include "engine/rank_slice.h"

#include <utility>

#include "kernels/base/check.h"

namespace gatehouse {

StepRows RowsOf(const StepPlan& plan, int num_ranks) {
  GATEHOUSE_CHECK(plan.span_ranks.size() == plan.spans.size()) << plan.span_ranks.size();
  std::vector<int32_t> row_ranks(plan.num_rows());
  for (size_t s = 0; s < plan.spans.size(); ++s) {
    const SequenceSpan& span = plan.spans[s];
    GATEHOUSE_CHECK(plan.span_ranks[s] >= 0 && plan.span_ranks[s] < num_ranks)
        << "rank " << plan.span_ranks[s] << " of " << num_ranks;
    for (int32_t i = 0; i < span.num_rows; ++i) row_ranks[span.first_row + i] = plan.span_ranks[s];
  }
  return RowsByRank(std::move(row_ranks), num_ranks);
}

std::vector<RankSlice> SliceByRank(const StepPlan& plan, const StepRows& rows) {
  std::vector<RankSlice> slices(rows.num_ranks());
  std::vector<int32_t> own_rows(plan.num_rows());  // of their rank
  for (size_t s = 0; s < plan.spans.size(); ++s) {
    const SequenceSpan& span = plan.spans[s];
    RankSlice& slice = slices[plan.span_ranks[s]];
    SequenceSpan own = span;
    own.first_row = static_cast<int32_t>(slice.token_ids.size());
    slice.spans.push_back(own);
    for (int32_t row = span.first_row; row < span.first_row + span.num_rows; ++row) {
      own_rows[row] = static_cast<int32_t>(slice.token_ids.size());
      slice.token_ids.push_back(plan.token_ids[row]);
      slice.positions.push_back(plan.positions[row]);
    }
  }
  for (size_t i = 0; i < plan.logit_rows.size(); ++i) {
    const int32_t row = plan.logit_rows[i].row;
    RankSlice& slice = slices[rows.row_ranks[row]];
    slice.logit_rows.push_back(own_rows[row]);
    slice.logit_ids.push_back(static_cast<int32_t>(i));
  }
  return slices;
}

}  // namespace gatehouse
