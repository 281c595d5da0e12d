#include "engine/moe/step_rows.h"

#include <utility>

namespace gatehouse {

StepRows RowsByRank(std::vector<int32_t> row_ranks, int num_ranks) {
  StepRows rows{.row_ranks = std::move(row_ranks)};
  rows.rank_begin.assign(num_ranks + 1, 0);
  for (const int32_t rank : rows.row_ranks) ++rows.rank_begin[rank + 1];
  for (int r = 0; r < num_ranks; ++r) rows.rank_begin[r + 1] += rows.rank_begin[r];
  std::vector<int32_t> next(rows.rank_begin.begin(), rows.rank_begin.end() - 1);
  rows.rank_rows.resize(rows.row_ranks.size());
  for (int row = 0; row < rows.num_rows(); ++row) {
    rows.rank_rows[next[rows.row_ranks[row]]++] = row;
  }
  return rows;
}

}  // namespace gatehouse
