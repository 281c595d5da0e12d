// The matrix kernels of one instruction set: some rows of x times one packed panel (packed.h). Each
// sum is one chain of fused multiply-adds from 0 in ascending input index, so that a row's bits
// depend on nothing else.
#pragma once

#include <cstdint>

namespace gatehouse::cpu {

// One panel and the rows that meet it. The first row of `out` belongs to the first row id.
struct PanelTile {
  const void* panel = nullptr;  // 64-byte aligned
  int64_t num_inputs = 0;
  const float* x = nullptr;
  int64_t x_stride = 0;
  const int32_t* row_ids = nullptr;  // [num_rows] rows of x; null: 0 .. num_rows - 1
  int64_t num_rows = 0;
  float* out = nullptr;  // [num_rows, num_cols]
  int64_t out_stride = 0;
  int num_cols = 0;                // valid columns: 1..32, of swiglu 1..16
  const float* bias = nullptr;     // [num_cols] or null; of swiglu for gate
  const float* up_bias = nullptr;  // [num_cols] or null; swiglu alone
  float scale = 1;                 // out = scale * ..; not for swiglu
  bool accumulate = false;         // out += ; not for swiglu
  float alpha = 0, limit = 0;      // clamped swiglu alone (ActivationOptions)
};

using PanelFn = void (*)(const PanelTile& tile);
// One row of a tile from its sums [32] on: bias, activation, scale.
using StoreFn = void (*)(const PanelTile& tile, const float* sums, float* out);

struct GemmKernels {
  PanelFn multiply_f32;
  PanelFn multiply_bf16;
  PanelFn swiglu_f32;  // panel of 16 gate and 16 up columns: out = silu(gate) * up
  PanelFn swiglu_bf16;
  PanelFn clamped_swiglu_f32;  // likewise, with ActivationOptions' second form
  PanelFn clamped_swiglu_bf16;
  StoreFn store;  // the ends of the products above
  StoreFn store_swiglu;
  StoreFn store_clamped_swiglu;
  void (*add)(const float* x, float scale, float* out, int64_t count);  // out += scale * x
};

}  // namespace gatehouse::cpu
