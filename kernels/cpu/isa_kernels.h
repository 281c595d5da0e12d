// What one instruction set provides: a table of functions, one group of them an operation. The
// bodies are templates over a lane type in <operation>_kernels.h, instantiated once in each
// isa_*.cc with that instruction set's compiler flags. No thread, no allocation, no failure in
// them: how work is split among threads is plain code in <operation>.cc.
//
// Every instruction set gives the same bits: same order of sums, same fused multiply-adds.
//
// The files isa_*.cc include this one, so it includes nothing with inline functions.
#pragma once

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/gemm_tiles.h"
#include "kernels/cpu/quant_tiles.h"
#include "kernels/cpu/row_tiles.h"
#include "kernels/cpu/sample_tiles.h"

namespace gatehouse::cpu {

struct IsaKernels {
  const char* name;  // what BackendOptions.isa says
  GemmKernels gemm;
  QuantKernels quant;
  AttentionKernels attention;
  RowKernels row;
  SampleKernels sample;
};

const IsaKernels& Avx2Kernels();         // x86-64 only
const IsaKernels& Avx512FloatKernels();  // likewise; without those of quantised weights
const IsaKernels& PortableKernels();

}  // namespace gatehouse::cpu
