// What the formats int8 and int4 mean: the values of a weight, the rounding of weights and
// activations, and the product. Every back end gives exactly these codes and scales, and sums in
// the order given here.
//
// The inputs k of a product stand in groups of 32; the last group of an odd number is filled up
// with zeros, weights and activations alike. Output n of row x is
//
//   sum(n, g) = sum over k in g of (code(n, k) - offset) * q(k)             exact: a whole number
//   out(n)    = fma(float(sum(n, g)), scale(n, g) * x_scale(g), out(n))     g = 0, 1, 2, ..; f32,
//               from 0; the product of the scales is rounded to f32 once
//
// Weights:     value = scale * (code - offset), the scale in bf16.
//   int8  offset 128, codes 1 .. 255; scale = largest magnitude / 127
//   int4  offset 8, codes 0 .. 15; scale = extreme / -8, where the extreme is the value of largest
//         magnitude (the first, of equal ones): it takes code 0 whatever its sign is, and none of
//         the 16 codes is wasted
// The scale is rounded to bf16 away from zero, and then the codes are taken with the rounded scale,
// to nearest even.
//
// Activations: q = x * (127 / largest magnitude), to nearest even, -127 .. 127; x_scale = largest
// magnitude / 127. Both divisions and the product in f32. A group of nothing but zeros (or of
// values below 2^-100) has scale 0 and codes 0. A group with a value that is not finite has scale
// NaN and codes 0, so that every output of that row is NaN.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/weight_format.h"

namespace gatehouse {

inline constexpr int kQuantGroup = 32;
// Scales of weights are no smaller, and activations count as zeros below, so that no quotient
// overflows.
inline constexpr float kLeastQuantScale = 0x1p-100f;

constexpr int64_t NumQuantGroups(int64_t num_inputs) {
  return (num_inputs + kQuantGroup - 1) / kQuantGroup;
}

constexpr int QuantOffset(WeightFormat format) { return format == WeightFormat::kInt8 ? 128 : 8; }

// To nearest even, for magnitudes up to 2^22: adding 1.5 * 2^23 leaves no bits for a fraction.
constexpr float RoundToWhole(float value) { return value + 12582912.0f - 12582912.0f; }

struct WeightGroup {
  uint16_t scale = 0;  // bf16
  uint8_t codes[kQuantGroup] = {};
};

// `values` are finite.
inline WeightGroup QuantiseWeights(WeightFormat format, const float (&values)[kQuantGroup]) {
  float extreme = 0;
  for (const float value : values) {
    if (std::fabs(value) > std::fabs(extreme)) extreme = value;
  }
  const bool is_int8 = format == WeightFormat::kInt8;
  const int offset = QuantOffset(format), low = is_int8 ? 1 : 0, high = is_int8 ? 255 : 15;
  float scale = is_int8 ? std::fabs(extreme) / 127 : extreme / -8;
  if (std::fabs(scale) < kLeastQuantScale) scale = kLeastQuantScale;
  WeightGroup group;
  group.scale = static_cast<uint16_t>((std::bit_cast<uint32_t>(scale) + 0xffff) >> 16);
  scale = BF16ToF32(group.scale);
  for (int i = 0; i < kQuantGroup; ++i) {
    const int code = static_cast<int>(RoundToWhole(values[i] / scale)) + offset;
    group.codes[i] = static_cast<uint8_t>(code < low ? low : code > high ? high : code);
  }
  return group;
}

constexpr float WeightValue(WeightFormat format, uint16_t scale, uint8_t code) {
  return BF16ToF32(scale) * static_cast<float>(code - QuantOffset(format));
}

struct ActivationGroup {
  float scale = 0;
  int8_t codes[kQuantGroup] = {};
};

inline ActivationGroup QuantiseActivations(const float (&values)[kQuantGroup]) {
  ActivationGroup group;
  float largest = 0;
  for (const float value : values) {
    if (!std::isfinite(value)) {
      return {.scale = std::bit_cast<float>(0x7fc00000u)};
    }
    largest = std::fmax(largest, std::fabs(value));
  }
  if (largest < kLeastQuantScale) return group;
  const float inverse = 127 / largest;
  group.scale = largest / 127;
  for (int i = 0; i < kQuantGroup; ++i) {
    group.codes[i] = static_cast<int8_t>(RoundToWhole(values[i] * inverse));
  }
  return group;
}

}  // namespace gatehouse
