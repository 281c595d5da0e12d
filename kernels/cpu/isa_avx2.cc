// The kernels in AVX2 and FMA. The only file compiled with -mavx2 -mfma: include nothing here that
// other files include too and that holds inline functions (std:: templates, absl).
#include "kernels/cpu/vec_avx2.h"
//
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/quant_256.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/cpu/sample_kernels.h"

namespace gatehouse::cpu {

const IsaKernels& Avx2Kernels() {
  static constexpr IsaKernels kKernels{.name = "avx2",
                                       .gemm = MakeGemmKernels<Avx2F32x8, Avx2F32x8>(),
                                       .quant = {.quantise = Quantise256,
                                                 .sum_int8 = Sum256<SignedBytes>,
                                                 .sum_int4 = Sum256<NarrowSums>},
                                       .attention = MakeAttentionKernels<Avx2F32x8>(),
                                       .row = MakeRowKernels<Avx2F32x8>(),
                                       .sample = MakeSampleKernels<Avx2F32x8>()};
  return kKernels;
}

}  // namespace gatehouse::cpu
