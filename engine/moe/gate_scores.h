// What the gate says of every row, before any bound: the row's ranking of experts with the numbers
// that bounded routing decides by. A value; written by a gate, read by the router (rules R4 to R7
// of docs/routing.md).
#pragma once

#include <cstdint>
#include <vector>

namespace gatehouse {

struct GateScores {
  int num_rows = 0;
  int num_experts = 0;
  int top_k = 0;
  // Ranked experts a row: those chosen and, behind them, as many as a reroute may look at.
  int num_ranked = 0;               // <= num_experts
  std::vector<int32_t> num_chosen;  // [num_rows] <= top_k; fewer where null experts were chosen
  std::vector<int32_t> ranked_ids;  // [num_rows, num_ranked] best first; -1: no expert from here on
  std::vector<float> gate;          // [num_rows, num_ranked] P (R4), beside ranked_ids
  std::vector<float> affinity;      // [num_rows, num_ranked] a (R5)
  std::vector<float> weight;        // [num_rows, num_ranked] g (R4)
  std::vector<uint8_t> row_failed;  // [num_rows] a number was not finite: the row means nothing

  int64_t At(int row, int rank) const { return int64_t{row} * num_ranked + rank; }
};

}  // namespace gatehouse
