// How weights are held for computing, chosen apart for experts and for everything else. The format
// says which values a weight may take and how a checkpoint's values are rounded to them; the packed
// layout belongs to each back end.
//
//   f32   values as stored (f16 and bf16 widen exactly)
//   bf16  nearest even; activations stay f32 and products are f32 fused multiply-adds
#pragma once

#include <string_view>

#include "kernels/dtype.h"

namespace gatehouse {

enum class WeightFormat { kF32, kBF16 };

constexpr std::string_view WeightFormatName(WeightFormat format) {
  return format == WeightFormat::kF32 ? "f32" : "bf16";
}

// The format that loses nothing of a file's values: f32 for f32 and f16, bf16 for bf16.
constexpr WeightFormat LosslessFormat(DType dtype) {
  return dtype == DType::kBF16 ? WeightFormat::kBF16 : WeightFormat::kF32;
}

}  // namespace gatehouse
