// Products of quantised weights in plain loops, for isa_portable.cc.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/packed_layout.h"
#include "kernels/cpu/quant_tiles.h"
#include "kernels/quantise.h"

namespace gatehouse::cpu {
namespace {

inline void QuantisePortable(const float* x, int64_t count, int64_t first_group, int64_t num_groups,
                             char* record) {
  char* codes = record + first_group * kGroupInputs;
  char* scales = record + QuantScalesAt(num_groups) + first_group * 4;
  char* neg_sums = record + QuantSumsAt(num_groups) + first_group * 4;
  for (; count > 0; count -= kGroupInputs, x += kGroupInputs) {
    float values[kGroupInputs] = {};
    const int64_t here = count < kGroupInputs ? count : kGroupInputs;
    for (int64_t i = 0; i < here; ++i) values[i] = x[i];
    const ActivationGroup group = QuantiseActivations(values);
    int32_t neg_sum = 0;
    for (const int8_t code : group.codes) neg_sum -= code;
    std::memcpy(codes, group.codes, kGroupInputs);
    std::memcpy(scales, &group.scale, 4);
    std::memcpy(neg_sums, &neg_sum, 4);
    codes += kGroupInputs;
    scales += 4;
    neg_sums += 4;
  }
}

// The codes of a group as bytes in the order of int8.
inline const uint8_t* CodesOf(const uint8_t* group, WeightFormat format, uint8_t* unpacked) {
  if (format == WeightFormat::kInt8) return group;
  constexpr int kHalf = 4 * kPanelStepBytes;
  for (int i = 0; i < kHalf; ++i) {
    unpacked[i] = group[i] & 15;
    unpacked[kHalf + i] = group[i] >> 4;
  }
  return unpacked;
}

// One row and one group: the exact sums of 32 columns.
inline void SumGroup(const uint8_t* codes, const int8_t* q, int32_t first, int32_t* sums) {
  for (int c = 0; c < kPanelCols; ++c) sums[c] = first;
  for (int s = 0; s < kGroupInputs / 4; ++s) {
    for (int c = 0; c < kPanelCols; ++c) {
      const uint8_t* w = codes + s * kPanelStepBytes + c * 4;
      sums[c] += w[0] * q[s * 4] + w[1] * q[s * 4 + 1] + w[2] * q[s * 4 + 2] + w[3] * q[s * 4 + 3];
    }
  }
}

template <WeightFormat kFormat>
void SumPortable(const QuantTile& tile) {
  constexpr int kBytes = kFormat == WeightFormat::kInt8 ? kInt8GroupBytes : kInt4GroupBytes;
  for (int i = 0; i < tile.num_rows * kPanelCols; ++i) tile.sums[i] = 0;
  const auto* group = static_cast<const uint8_t*>(tile.panel);
  for (int64_t g = 0; g < tile.num_groups; ++g, group += kBytes) {
    uint8_t unpacked[kGroupInputs * kPanelCols];
    const uint8_t* codes = CodesOf(group, kFormat, unpacked);
    float scales[kPanelCols];
    for (int c = 0; c < kPanelCols; ++c) {
      uint16_t bits;
      std::memcpy(&bits, group + kBytes - kScaleBytes + c * 2, 2);
      scales[c] = BF16ToF32(bits);
    }
    for (int r = 0; r < tile.num_rows; ++r) {
      const char* record = tile.rows[r];
      float x_scale;
      int32_t neg_sum, sums[kPanelCols];
      std::memcpy(&x_scale, record + QuantScalesAt(tile.num_groups) + g * 4, 4);
      std::memcpy(&neg_sum, record + QuantSumsAt(tile.num_groups) + g * 4, 4);
      SumGroup(codes, reinterpret_cast<const int8_t*>(record) + g * kGroupInputs,
               neg_sum * QuantOffset(kFormat), sums);
      float* out = tile.sums + r * kPanelCols;
      for (int c = 0; c < kPanelCols; ++c) {
        out[c] = __builtin_fmaf(static_cast<float>(sums[c]), scales[c] * x_scale, out[c]);
      }
    }
  }
}

constexpr QuantKernels MakePortableQuantKernels() {
  return {.quantise = QuantisePortable,
          .sum_int8 = SumPortable<WeightFormat::kInt8>,
          .sum_int4 = SumPortable<WeightFormat::kInt4>};
}

}  // namespace
}  // namespace gatehouse::cpu
