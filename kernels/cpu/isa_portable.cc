// The kernels in plain C++ for the build's base instruction set.
#include "kernels/cpu/vec_portable.h"
//
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/quant_portable.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/cpu/sample_kernels.h"

namespace gatehouse::cpu {

const IsaKernels& PortableKernels() {
  static constexpr IsaKernels kKernels{.name = "portable",
                                       .gemm = MakeGemmKernels<PortableF32x8, PortableF32x8>(),
                                       .quant = MakePortableQuantKernels(),
                                       .attention = MakeAttentionKernels<PortableF32x8>(),
                                       .row = MakeRowKernels<PortableF32x8>(),
                                       .sample = MakeSampleKernels<PortableF32x8>()};
  return kKernels;
}

}  // namespace gatehouse::cpu
