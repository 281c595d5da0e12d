// The packed layout of weights, shared by packing (packed.cc) and kernels (gemm_kernels.h).
//
// A matrix [num_outputs, num_inputs] is cut into panels of 32 outputs ("columns" of the product),
// the last one padded with zeros. A panel is one forward stream of whole cache lines, read once for
// each block of rows; the panels lie one after another.
//
//   f32   step = 1 input:  32 columns x f32
//   bf16  step = 2 inputs: 32 columns x (input 2p, input 2p + 1), padded by 0 for an odd number
//   int8  group of 32 inputs = 8 steps of 4 inputs: 32 columns x (inputs 4s .. 4s + 3), then the
//         bf16 scales of the 32 columns
//   int4  likewise, but 4 steps: the low half of each byte is step s, the high half step s + 4
//
// A step is 128 bytes in all of them, and its first 64-byte line holds columns 0..15. Codes are
// stored as quantise.h has them, with the offset. Columns and inputs that fill up have scale 0 or
// stand for weight 0. The gate and up matrices of an expert share panels: columns 0..15 are 16 of
// gate, 16..31 the same 16 of up, so that SwiGLU needs the sums of its own panel only.
#pragma once

#include <cstdint>
#include <string_view>

namespace gatehouse::cpu {

// Files hold panels: another layout, or another rounding in quantise.h, is another name.
inline constexpr std::string_view kPackedLayout = "cpu-panels-1";

inline constexpr int kPanelCols = 32;
inline constexpr int kPanelStepBytes = 128;

inline constexpr int kGroupInputs = 32;
inline constexpr int kScaleBytes = 64;  // of a group
inline constexpr int kInt8GroupBytes = 8 * kPanelStepBytes + kScaleBytes;
inline constexpr int kInt4GroupBytes = 4 * kPanelStepBytes + kScaleBytes;

}  // namespace gatehouse::cpu
