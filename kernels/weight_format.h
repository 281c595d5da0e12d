// How weights are held for computing, chosen apart for experts and for everything else. The format
// says which values a weight may take and how a checkpoint's values are rounded to them; the packed
// layout belongs to each back end.
//
//   f32   values as stored (f16 and bf16 widen exactly)
//   bf16  nearest even; activations stay f32 and products are f32 fused multiply-adds
//   int8  8-bit codes, a scale for each 32 inputs of an output; activations are rounded to 8 bits
//   int4  4-bit codes, likewise (quantise.h defines both)
#pragma once

#include <array>
#include <optional>
#include <string_view>

#include "kernels/dtype.h"

namespace gatehouse {

enum class WeightFormat { kF32, kBF16, kInt8, kInt4 };

inline constexpr std::array kWeightFormats = {WeightFormat::kF32, WeightFormat::kBF16,
                                              WeightFormat::kInt8, WeightFormat::kInt4};

constexpr std::string_view WeightFormatName(WeightFormat format) {
  constexpr std::array<std::string_view, 4> kNames = {"f32", "bf16", "int8", "int4"};
  return kNames[static_cast<size_t>(format)];
}

// Absent for a name that is none.
constexpr std::optional<WeightFormat> FindWeightFormat(std::string_view name) {
  for (const WeightFormat format : kWeightFormats) {
    if (name == WeightFormatName(format)) return format;
  }
  return std::nullopt;
}

// Whether products round their activations too.
constexpr bool IsQuantised(WeightFormat format) {
  return format == WeightFormat::kInt8 || format == WeightFormat::kInt4;
}

// The format that loses nothing of a file's values: f32 for f32 and f16, bf16 for bf16.
constexpr WeightFormat LosslessFormat(DType dtype) {
  return dtype == DType::kBF16 ? WeightFormat::kBF16 : WeightFormat::kF32;
}

}  // namespace gatehouse
