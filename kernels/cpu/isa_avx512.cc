// The kernels in AVX-512: matrix products in 16 lanes, the rest in 8 lanes with twice the
// registers. Has flags of its own: include nothing here that other files include too and that holds
// inline functions (std:: templates, absl).
#include "kernels/cpu/vec_avx2.h"
#include "kernels/cpu/vec_avx512.h"
//
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/cpu/sample_kernels.h"

namespace gatehouse::cpu {

const IsaKernels& Avx512FloatKernels() {
  static constexpr IsaKernels kKernels{.name = "avx512",
                                       .gemm = MakeGemmKernels<Avx2F32x8, Avx512F32x16>(),
                                       .quant = {},
                                       .attention = MakeAttentionKernels<Avx2F32x8>(),
                                       .row = MakeRowKernels<Avx2F32x8>(),
                                       .sample = MakeSampleKernels<Avx2F32x8>()};
  return kKernels;
}

}  // namespace gatehouse::cpu
