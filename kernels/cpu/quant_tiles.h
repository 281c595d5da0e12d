// The kernels of one instruction set for quantised weights (quantise.h): rows of activations are
// quantised once a product, then every panel meets them as whole numbers. The sums of a group are
// exact, so only the f32 part has an order, and every instruction set gives the same bits however
// its tiles are made.
#pragma once

#include <cstdint>

namespace gatehouse::cpu {

// Rows of activations, each in a record of its own: [num_groups * 32] codes, [num_groups] f32
// scales, [num_groups] s32 sums of codes, negative. A view on a back end's scratch.
struct QuantRows {
  char* data = nullptr;
  int64_t num_groups = 0;
  int64_t stride = 0;  // bytes from one row to the next

  char* row(int64_t r) const { return data + r * stride; }
  QuantRows From(int64_t first) const { return {row(first), num_groups, stride}; }
};
// Always inline, so that no copy with an instruction set's flags is left to the linker.
[[gnu::always_inline]] constexpr int64_t QuantScalesAt(int64_t num_groups) {
  return num_groups * 32;
}
[[gnu::always_inline]] constexpr int64_t QuantSumsAt(int64_t num_groups) { return num_groups * 36; }
constexpr int64_t kQuantTileRows = 64;

// sums[r][0 .. 32) = row r times the panel.
struct QuantTile {
  const void* panel = nullptr;  // 64-byte aligned
  int64_t num_groups = 0;
  const char* const* rows = nullptr;  // [num_rows] records
  int num_rows = 0;                   // 1 .. kQuantTileRows
  float* sums = nullptr;              // [num_rows, 32], 64-byte aligned
};

struct QuantKernels {
  // Groups [first_group, ..) of a record from `count` values of x, the last group filled up with
  // zeros.
  void (*quantise)(const float* x, int64_t count, int64_t first_group, int64_t num_groups,
                   char* record);
  void (*sum_int8)(const QuantTile& tile);
  void (*sum_int4)(const QuantTile& tile);
};

const QuantKernels& Avx512QuantKernels();   // x86-64 only
const QuantKernels& AvxVnniQuantKernels();  // likewise

}  // namespace gatehouse::cpu
