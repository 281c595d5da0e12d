// How a product is cut into units for the threads. Nothing here changes a bit of any result.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/quant_tiles.h"
#include "kernels/quantise.h"

namespace gatehouse::cpu {

// Bytes of a row of quantised activations (QuantRows): an odd number of lines, so that the rows of
// a tile spread over all sets of the first-level cache.
inline int64_t QuantRowBytes(int64_t num_inputs) {
  const int64_t record = NumQuantGroups(num_inputs) * 40, line = 64;
  return ((record + line - 1) / line | 1) * line;
}

// Rows of x that stay in the second-level cache while all panels pass by: 512 KiB of them.
inline int64_t MaxRangeRows(int64_t num_inputs, WeightFormat format = WeightFormat::kF32) {
  constexpr int64_t kRangeBytes = int64_t{512} << 10;
  const bool quantised = IsQuantised(format);
  const int64_t row_bytes = quantised ? QuantRowBytes(num_inputs) : num_inputs * 4;
  const int64_t tile_rows = quantised ? kQuantTileRows : 48;
  return std::max(kRangeBytes / row_bytes / tile_rows, int64_t{1}) * tile_rows;
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
