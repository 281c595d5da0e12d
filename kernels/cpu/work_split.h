// How a product is cut into units for the threads. Nothing here changes a bit of any result.
#pragma once

#include <algorithm>
#include <cstdint>

namespace gatehouse::cpu {

// Rows of x that stay in the second-level cache while all panels pass by: 512 KiB of them.
inline int64_t MaxRangeRows(int64_t num_inputs) {
  constexpr int64_t kRangeBytes = int64_t{512} << 10, kTileRows = 48;
  const int64_t rows = kRangeBytes / 4 / num_inputs;
  return std::max(rows / kTileRows, int64_t{1}) * kTileRows;
}

// Consecutive panels of one unit: as many as leave each thread 8 units, so that the prefetch past
// the end of a panel is not in vain; at most 4.
inline int64_t PanelsPerUnit(int64_t num_panels, int num_threads) {
  return std::clamp<int64_t>(num_panels / (8 * num_threads), 1, 4);
}

// Part `idx` of `count` nearly equal parts of [0, total).
struct Part {
  int64_t begin, end;
};
inline Part NthPart(int64_t total, int64_t count, int64_t idx) {
  return {total * idx / count, total * (idx + 1) / count};
}

}  // namespace gatehouse::cpu
