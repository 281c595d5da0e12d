// Products of quantised weights with the 256-bit dot product of bytes of processors without
// AVX-512. Has flags of its own: include nothing here with inline functions that other files
// include too.
#include "kernels/cpu/quant_256.h"

namespace gatehouse::cpu {
namespace {

// The codes as they are; the offset comes in as the first value of the sum.
template <bool kIsInt4>
struct ByteProducts {
  static constexpr bool kInt4 = kIsInt4;
  static __m256i First(const char* neg_sum) {
    return _mm256_slli_epi32(BroadcastQuad(neg_sum), kInt4 ? 3 : 7);
  }
  using Weights = __m256i;
  static Weights Load(const char* p) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
  }
  static __m256i Add(__m256i sum, Weights w, __m256i x) {
    return _mm256_dpbusd_avx_epi32(sum, w, x);
  }
  static __m256i Last(__m256i sum, const char* /*neg_sum*/) { return sum; }
};

}  // namespace

const QuantKernels& AvxVnniQuantKernels() {
  static constexpr QuantKernels kKernels{.quantise = Quantise256,
                                         .sum_int8 = Sum256<ByteProducts<false>>,
                                         .sum_int4 = Sum256<ByteProducts<true>>};
  return kKernels;
}

}  // namespace gatehouse::cpu
