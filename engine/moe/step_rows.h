// Which rank of a deployment has which rows of a step: a value, the same on every rank. A rank's
// own rows are numbered in the order of the step's.
//
//   row_ranks   0 1 0 1 1      of the step's rows
//   rank_rows   0 2 | 1 3 4    rank 1's row 2 is row 4 of the step
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace gatehouse {

struct StepRows {
  std::vector<int32_t> row_ranks;   // [num_rows]
  std::vector<int32_t> rank_rows;   // [num_rows] rank by rank, ascending
  std::vector<int32_t> rank_begin;  // [num_ranks + 1] into rank_rows

  int num_rows() const { return static_cast<int>(row_ranks.size()); }
  int num_ranks() const { return static_cast<int>(rank_begin.size()) - 1; }
  std::span<const int32_t> rows_of(int rank) const {
    return std::span(rank_rows).subspan(rank_begin[rank], rank_begin[rank + 1] - rank_begin[rank]);
  }
};

StepRows RowsByRank(std::vector<int32_t> row_ranks, int num_ranks);

}  // namespace gatehouse
