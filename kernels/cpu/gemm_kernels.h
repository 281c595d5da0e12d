// Rows times a packed panel, output-stationary: the sums of up to 6 rows x 16 columns (or 2 x 32)
// stay in registers over all inputs. Included, after the header of V, by the files isa_*.cc only.
#pragma once

#include <cstdint>

#include "kernels/cpu/gemm_tiles.h"
#include "kernels/cpu/packed_layout.h"
#include "kernels/cpu/vec_math.h"

namespace gatehouse::cpu {
namespace {

// 6 rows x 2 registers, 2 of weights, 1 of x, 1 constant: all 16 of AVX2.
constexpr int kBlockRows = 6;
// Found by trial: without it no number of rows between 2 and 32 comes near a limit.
constexpr int64_t kPrefetchBytes = 8192;

// One step of the panel stream is 128 bytes: 32 columns x 1 input in f32, x 2 inputs in bf16.
template <typename V>
struct F32Panel {
  static constexpr int kInputsPerStep = 1;
  template <int kNumRegs>
  static void Load(const char* step, int /*input*/, V (&w)[kNumRegs]) {
    for (int c = 0; c < kNumRegs; ++c) w[c] = V::Load(reinterpret_cast<const float*>(step) + c * 8);
  }
};
template <typename V>
struct BF16Panel {
  static constexpr int kInputsPerStep = 2;
  template <int kNumRegs>
  static void Load(const char* step, int input, V (&w)[kNumRegs]) {
    const uint16_t* pairs = reinterpret_cast<const uint16_t*>(step);
    for (int c = 0; c < kNumRegs; ++c) {
      w[c] = input == 0 ? V::LoadBF16First(pairs + c * 16) : V::LoadBF16Second(pairs + c * 16);
    }
  }
};

// sums[r][0 .. 8 kNumRegs) of kNumRows rows; `panel` points at the first of these columns.
template <typename V, typename Panel, int kNumRows, int kNumRegs>
void SumColumns(const char* panel, const float* const* x, int64_t num_inputs, float* sums) {
  V s[kNumRows][kNumRegs];
  for (int r = 0; r < kNumRows; ++r) {
    for (int c = 0; c < kNumRegs; ++c) s[r][c] = V::Zero();
  }
  const auto add_input = [&](int in_step, int64_t k) __attribute__((always_inline)) {
    V w[kNumRegs];
    Panel::Load(panel, in_step, w);
    for (int r = 0; r < kNumRows; ++r) {
      const V value = V::Broadcast(x[r][k]);
      for (int c = 0; c < kNumRegs; ++c) s[r][c] = Fma(w[c], value, s[r][c]);
    }
  };
  int64_t k = 0;
  for (; k + Panel::kInputsPerStep <= num_inputs; k += Panel::kInputsPerStep) {
    __builtin_prefetch(panel + kPrefetchBytes);
    if constexpr (kNumRegs == 4) __builtin_prefetch(panel + kPrefetchBytes + 64);
    for (int i = 0; i < Panel::kInputsPerStep; ++i) add_input(i, k + i);
    panel += kPanelStepBytes;
  }
  // An odd last input shares its step with padding, which must not meet what lies behind x.
  if (k < num_inputs) add_input(0, k);
  for (int r = 0; r < kNumRows; ++r) {
    for (int c = 0; c < kNumRegs; ++c) s[r][c].Store(sums + r * kPanelCols + c * 8);
  }
}

// All 32 columns of kNumRows rows: at once while the registers suffice, else by halves (of 64 bytes
// in each step, one cache line).
template <typename V, typename Panel, int kNumRows>
void SumPanel(const char* panel, const float* const* x, int64_t num_inputs, float* sums) {
  if constexpr (kNumRows <= 2) {
    SumColumns<V, Panel, kNumRows, 4>(panel, x, num_inputs, sums);
  } else {
    SumColumns<V, Panel, kNumRows, 2>(panel, x, num_inputs, sums);
    SumColumns<V, Panel, kNumRows, 2>(panel + 64, x, num_inputs, sums + 16);
  }
}

// out = sums (+ bias) (+ out)
template <typename V>
struct StoreSums {
  static void Row(const PanelTile& tile, const float* sums, float* out) {
    for (int c = 0; c < tile.num_cols; c += 8) {
      const int count = tile.num_cols - c < 8 ? tile.num_cols - c : 8;
      V value = V::Load(sums + c);
      if (tile.bias != nullptr) value = Add(value, V::LoadFirst(tile.bias + c, count));
      if (tile.accumulate) value = Add(value, V::LoadFirst(out + c, count));
      value.StoreFirst(out + c, count);
    }
  }
};
// out = silu(gate) * up
template <typename V>
struct StoreSwiglu {
  static void Row(const PanelTile& tile, const float* sums, float* out) {
    for (int c = 0; c < tile.num_cols; c += 8) {
      const int count = tile.num_cols - c < 8 ? tile.num_cols - c : 8;
      const V gate = V::Load(sums + c), up = V::Load(sums + kPanelCols / 2 + c);
      Mul(Silu(gate), up).StoreFirst(out + c, count);
    }
  }
};

// Blocks of at most 6 rows, as equal as possible: 7 rows are 4 + 3, never 6 + 1, as a block reads
// the whole panel however few its rows are.
template <typename V, typename Panel, typename Store>
void RunPanel(const PanelTile& tile) {
  using SumFn = void (*)(const char*, const float* const*, int64_t, float*);
  static constexpr SumFn kSums[kBlockRows] = {SumPanel<V, Panel, 1>, SumPanel<V, Panel, 2>,
                                              SumPanel<V, Panel, 3>, SumPanel<V, Panel, 4>,
                                              SumPanel<V, Panel, 5>, SumPanel<V, Panel, 6>};
  int64_t first = 0;
  for (int64_t num_blocks = (tile.num_rows + kBlockRows - 1) / kBlockRows; num_blocks > 0;
       --num_blocks) {
    const int count = static_cast<int>((tile.num_rows - first + num_blocks - 1) / num_blocks);
    const float* x[kBlockRows];
    for (int r = 0; r < count; ++r) {
      const int64_t row = tile.row_ids != nullptr ? tile.row_ids[first + r] : first + r;
      x[r] = tile.x + row * tile.x_stride;
    }
    alignas(64) float sums[kBlockRows * kPanelCols];
    kSums[count - 1](static_cast<const char*>(tile.panel), x, tile.num_inputs, sums);
    for (int r = 0; r < count; ++r) {
      Store::Row(tile, sums + r * kPanelCols, tile.out + (first + r) * tile.out_stride);
    }
    first += count;
  }
}

template <typename V>
void AddTo(const float* x, float* out, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) Add(V::Load(out + i), V::Load(x + i)).Store(out + i);
  for (; i < count; ++i) out[i] += x[i];
}

template <typename V>
constexpr GemmKernels MakeGemmKernels() {
  return {.multiply_f32 = RunPanel<V, F32Panel<V>, StoreSums<V>>,
          .multiply_bf16 = RunPanel<V, BF16Panel<V>, StoreSums<V>>,
          .swiglu_f32 = RunPanel<V, F32Panel<V>, StoreSwiglu<V>>,
          .swiglu_bf16 = RunPanel<V, BF16Panel<V>, StoreSwiglu<V>>,
          .add = AddTo<V>};
}

}  // namespace
}  // namespace gatehouse::cpu
