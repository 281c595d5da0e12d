// The packed layout of weights, shared by packing (packed.cc) and kernels (gemm_kernels.h).
//
// A matrix [num_outputs, num_inputs] is cut into panels of 32 outputs ("columns" of the product),
// the last one padded with zeros. A panel is one forward stream of whole cache lines, read once for
// each block of rows; the panels lie one after another.
//
//   f32   step = 1 input:  32 columns x f32
//   bf16  step = 2 inputs: 32 columns x (input 2p, input 2p + 1), padded by 0 for an odd number
//
// So a step is 128 bytes in both, and its first 64-byte line holds columns 0..15. The gate and up
// matrices of an expert share panels: columns 0..15 are 16 of gate, 16..31 the same 16 of up, so
// that SwiGLU needs the sums of its own panel only.
#pragma once

#include <cstdint>

namespace gatehouse::cpu {

inline constexpr int kPanelCols = 32;
inline constexpr int kPanelStepBytes = 128;

}  // namespace gatehouse::cpu
