// Rows times a packed panel. The inputs are taken in chunks of 8 KiB of the panel; within a chunk,
// blocks of rows hold their sums in registers: 6 rows x 16 columns (or 2 x 32) in 8 lanes, 12 x 32
// in 16. So the first-level cache keeps the chunk while the rows pass by, and memory is read in one
// steady stream: each block prefetches its share of the next chunk.
//
// W is the lane type of the sums, V that of what follows. A sum is a lane of its own whichever W
// is, so the bits are the same. Included, after the headers of both, by the files isa_*.cc only.
#pragma once

#include <cstdint>

#include "kernels/cpu/gemm_tiles.h"
#include "kernels/cpu/packed_layout.h"
#include "kernels/cpu/vec_math.h"

namespace gatehouse::cpu {

// Rows whose sums are kept beside the chunk (6 KiB).
constexpr int kTileRows = 48;
constexpr int64_t kChunkSteps = 64;

namespace {

// One step of the panel stream is 128 bytes: 32 columns x 1 input in f32, x 2 inputs in bf16.
template <typename W>
struct F32Panel {
  static constexpr int kInputsPerStep = 1;
  template <int kNumRegs>
  static void Load(const char* step, int /*input*/, W (&w)[kNumRegs]) {
    const float* columns = reinterpret_cast<const float*>(step);
    for (int c = 0; c < kNumRegs; ++c) w[c] = W::Load(columns + c * W::kLanes);
  }
};
template <typename W>
struct BF16Panel {
  static constexpr int kInputsPerStep = 2;
  template <int kNumRegs>
  static void Load(const char* step, int input, W (&w)[kNumRegs]) {
    const uint16_t* pairs = reinterpret_cast<const uint16_t*>(step);
    for (int c = 0; c < kNumRegs; ++c) {
      const uint16_t* columns = pairs + c * 2 * W::kLanes;
      w[c] = input == 0 ? W::LoadBF16First(columns) : W::LoadBF16Second(columns);
    }
  }
};

// f(0), f(1) .. f(count - 1) with constants, so that arrays indexed by them become registers early
// enough: g++ 12 unrolls a loop too late for that.
template <int kIndex>
struct Constant {
  static constexpr int kValue = kIndex;
};
template <int kCount, typename Function>
inline __attribute__((always_inline)) void ForEach(const Function& function) {
  if constexpr (kCount > 0) {
    ForEach<kCount - 1>(function);
    function(Constant<kCount - 1>());
  }
}

// A share of the lines to fetch ahead, spread over the steps of one pass.
struct Prefetch {
  const char* next;
  int64_t bytes_per_step;
};

// The inputs [begin, end) of one chunk for some rows.
struct Chunk {
  const char* panel;  // the step of input `begin`
  const float* const* x;
  int64_t begin, end;
};

// Adds a chunk to sums[r][0 .. kLanes kNumRegs) of kNumRows rows; `chunk.panel` points at the first
// of these columns.
template <typename W, typename Panel, int kNumRows, int kNumRegs>
void SumColumns(Chunk chunk, Prefetch prefetch, float* sums) {
  constexpr bool kWholeStep = kNumRegs * W::kLanes == kPanelCols;
  W s[kNumRows][kNumRegs];
  const float* x[kNumRows];
  ForEach<kNumRows>([&](auto r) __attribute__((always_inline)) {
    x[r.kValue] = chunk.x[r.kValue];
    ForEach<kNumRegs>([&](auto c) __attribute__((always_inline)) {
      s[r.kValue][c.kValue] = W::Load(sums + r.kValue * kPanelCols + c.kValue * W::kLanes);
    });
  });
  const char* panel = chunk.panel;
  const auto add_input = [&](int in_step, int64_t k) __attribute__((always_inline)) {
    W w[kNumRegs];
    Panel::Load(panel, in_step, w);
    ForEach<kNumRows>([&](auto r) __attribute__((always_inline)) {
      const W value = W::Broadcast(x[r.kValue][k]);
      ForEach<kNumRegs>([&](auto c) __attribute__((always_inline)) {
        AddProduct(w[c.kValue], value, s[r.kValue][c.kValue]);
      });
    });
  };
  int64_t k = chunk.begin;
  for (; k + Panel::kInputsPerStep <= chunk.end; k += Panel::kInputsPerStep) {
    __builtin_prefetch(prefetch.next);
    if constexpr (kWholeStep) __builtin_prefetch(prefetch.next + 64);
    prefetch.next += prefetch.bytes_per_step;
    for (int i = 0; i < Panel::kInputsPerStep; ++i) add_input(i, k + i);
    panel += kPanelStepBytes;
  }
  // An odd last input shares its step with padding, which must not meet what lies behind x.
  if (k < chunk.end) add_input(0, k);
  ForEach<kNumRows>([&](auto r) __attribute__((always_inline)) {
    ForEach<kNumRegs>([&](auto c) __attribute__((always_inline)) {
      s[r.kValue][c.kValue].Store(sums + r.kValue * kPanelCols + c.kValue * W::kLanes);
    });
  });
}

// All 32 columns of kNumRows rows: at once while the registers suffice, else by halves (of 64 bytes
// in each step, one cache line).
template <typename W, typename Panel, int kNumRows>
void SumBlock(Chunk chunk, Prefetch prefetch, float* sums) {
  constexpr int kStepRegs = kPanelCols / W::kLanes;
  if constexpr (kNumRows * kStepRegs <= 2 * W::kBlockRows) {
    SumColumns<W, Panel, kNumRows, kStepRegs>(chunk, prefetch, sums);
  } else {
    prefetch.bytes_per_step /= 2;
    SumColumns<W, Panel, kNumRows, kStepRegs / 2>(chunk, prefetch, sums);
    prefetch.next += kChunkSteps * prefetch.bytes_per_step;
    chunk.panel += kPanelStepBytes / 2;
    SumColumns<W, Panel, kNumRows, kStepRegs / 2>(chunk, prefetch, sums + kPanelCols / 2);
  }
}

// How many rows the next block of `num_rows` takes: as equal as possible (of at most 6, 7 rows are
// 4 + 3, never 6 + 1, as a block costs its loads of weights however few its rows are).
template <typename W>
int NextBlock(int64_t num_rows) {
  const int64_t num_blocks = (num_rows + W::kBlockRows - 1) / W::kBlockRows;
  return static_cast<int>((num_rows + num_blocks - 1) / num_blocks);
}

using SumFn = void (*)(Chunk, Prefetch, float*);
template <typename W, typename Panel>
struct SumBlocks {
  SumFn of_rows[W::kBlockRows];
  constexpr SumBlocks() : of_rows() { Fill<W::kBlockRows>(); }
  template <int kNumRows>
  constexpr void Fill() {
    of_rows[kNumRows - 1] = SumBlock<W, Panel, kNumRows>;
    if constexpr (kNumRows > 1) Fill<kNumRows - 1>();
  }
};

// The sums of up to kTileRows rows.
template <typename W, typename Panel>
void SumTile(const PanelTile& tile, const float* const* x, int num_rows, float* sums) {
  static constexpr SumBlocks<W, Panel> kSums;
  constexpr int64_t kChunkInputs = kChunkSteps * Panel::kInputsPerStep;
  constexpr int64_t kChunkBytes = kChunkSteps * kPanelStepBytes;
  for (int i = 0; i < num_rows * kPanelCols; i += W::kLanes) W::Zero().Store(sums + i);
  const int num_blocks = (num_rows + W::kBlockRows - 1) / W::kBlockRows;
  const char* panel = static_cast<const char*>(tile.panel);
  for (int64_t begin = 0; begin < tile.num_inputs; begin += kChunkInputs) {
    const int64_t left = tile.num_inputs - begin;
    Prefetch prefetch{panel + kChunkBytes, kPanelStepBytes / num_blocks};
    for (int first = 0; first < num_rows;) {
      const int count = NextBlock<W>(num_rows - first);
      kSums.of_rows[count - 1](
          {panel, x + first, begin, begin + (left < kChunkInputs ? left : kChunkInputs)}, prefetch,
          sums + first * kPanelCols);
      prefetch.next += kChunkSteps * prefetch.bytes_per_step;
      first += count;
    }
    panel += kChunkBytes;
  }
}

// out = scale * (sums (+ bias)) (+ out)
template <typename V>
struct StoreSums {
  static void Row(const PanelTile& tile, const float* sums, float* out) {
    for (int c = 0; c < tile.num_cols; c += 8) {
      const int count = tile.num_cols - c < 8 ? tile.num_cols - c : 8;
      V value = V::Load(sums + c);
      if (tile.bias != nullptr) value = Add(value, V::LoadFirst(tile.bias + c, count));
      value = Mul(value, V::Broadcast(tile.scale));
      if (tile.accumulate) value = Add(value, V::LoadFirst(out + c, count));
      value.StoreFirst(out + c, count);
    }
  }
};
// out = activation(gate, up)
template <typename V, typename Activation>
struct StoreGated {
  static void Row(const PanelTile& tile, const float* sums, float* out) {
    for (int c = 0; c < tile.num_cols; c += 8) {
      const int count = tile.num_cols - c < 8 ? tile.num_cols - c : 8;
      V gate = V::Load(sums + c), up = V::Load(sums + kPanelCols / 2 + c);
      if (tile.bias != nullptr) gate = Add(gate, V::LoadFirst(tile.bias + c, count));
      if (tile.up_bias != nullptr) up = Add(up, V::LoadFirst(tile.up_bias + c, count));
      Activation::Of(tile, gate, up).StoreFirst(out + c, count);
    }
  }
};
template <typename V>
struct Swiglu {
  static V Of(const PanelTile& /*tile*/, V gate, V up) { return Mul(Silu(gate), up); }
};
template <typename V>
struct ClampedSwiglu {
  static V Of(const PanelTile& tile, V gate, V up) {
    const V limit = V::Broadcast(tile.limit);
    gate = Min(limit, gate);
    up = Max(Sub(V::Zero(), limit), Min(limit, up));
    const V sigmoid_divisor = Add(V::Broadcast(1), Exp(Mul(gate, V::Broadcast(-tile.alpha))));
    return Mul(Add(up, V::Broadcast(1)), Div(gate, sigmoid_divisor));
  }
};

template <typename W, typename Panel, typename Store>
void RunPanel(const PanelTile& tile) {
  for (int64_t first = 0; first < tile.num_rows; first += kTileRows) {
    const int64_t left = tile.num_rows - first;
    const int count = static_cast<int>(left < kTileRows ? left : kTileRows);
    const float* x[kTileRows];
    for (int r = 0; r < count; ++r) {
      const int64_t row = tile.row_ids != nullptr ? tile.row_ids[first + r] : first + r;
      x[r] = tile.x + row * tile.x_stride;
    }
    alignas(64) float sums[kTileRows * kPanelCols];
    SumTile<W, Panel>(tile, x, count, sums);
    for (int r = 0; r < count; ++r) {
      Store::Row(tile, sums + r * kPanelCols, tile.out + (first + r) * tile.out_stride);
    }
  }
}

template <typename V>
void AddTo(const float* x, float scale, float* out, int64_t count) {
  const V factor = V::Broadcast(scale);
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) Fma(factor, V::Load(x + i), V::Load(out + i)).Store(out + i);
  const int rest = static_cast<int>(count - i);
  Fma(factor, V::LoadFirst(x + i, rest), V::LoadFirst(out + i, rest)).StoreFirst(out + i, rest);
}

template <typename V, typename W>
constexpr GemmKernels MakeGemmKernels() {
  return {.multiply_f32 = RunPanel<W, F32Panel<W>, StoreSums<V>>,
          .multiply_bf16 = RunPanel<W, BF16Panel<W>, StoreSums<V>>,
          .swiglu_f32 = RunPanel<W, F32Panel<W>, StoreGated<V, Swiglu<V>>>,
          .swiglu_bf16 = RunPanel<W, BF16Panel<W>, StoreGated<V, Swiglu<V>>>,
          .clamped_swiglu_f32 = RunPanel<W, F32Panel<W>, StoreGated<V, ClampedSwiglu<V>>>,
          .clamped_swiglu_bf16 = RunPanel<W, BF16Panel<W>, StoreGated<V, ClampedSwiglu<V>>>,
          .store = StoreSums<V>::Row,
          .store_swiglu = StoreGated<V, Swiglu<V>>::Row,
          .store_clamped_swiglu = StoreGated<V, ClampedSwiglu<V>>::Row,
          .add = AddTo<V>};
}

}  // namespace
}  // namespace gatehouse::cpu
