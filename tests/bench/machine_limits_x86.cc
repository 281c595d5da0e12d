// Written as assembly: with intrinsics the compiler merges equal products and the peak comes out
// too high. Needs AVX2 and FMA, like the kernels it is compared with.
#include <immintrin.h>

#include "tests/bench/machine_limits.h"

namespace gatehouse::bench {

#define GATEHOUSE_FMA(n) "vfmadd231ps %%ymm12, %%ymm13, %%ymm" #n "\n\t"

double RunFmas(int64_t num_rounds) {
  for (int64_t i = 0; i < num_rounds; ++i) {
    __asm__ volatile(GATEHOUSE_FMA(0) GATEHOUSE_FMA(1) GATEHOUSE_FMA(2) GATEHOUSE_FMA(3)
                         GATEHOUSE_FMA(4) GATEHOUSE_FMA(5) GATEHOUSE_FMA(6) GATEHOUSE_FMA(7)
                             GATEHOUSE_FMA(8) GATEHOUSE_FMA(9) GATEHOUSE_FMA(10) GATEHOUSE_FMA(11)
                     :
                     :
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                       "xmm9", "xmm10", "xmm11");
  }
  return static_cast<double>(num_rounds) * 12 * 8 * 2;
}

__attribute__((target("avx2"))) void ReadAll(const char* data, size_t num_bytes) {
  __m256i sum[4] = {};
  for (size_t i = 0; i < num_bytes; i += 128) {
    // 6 to 24 % more on two threads.
    _mm_prefetch(data + i + 8192, _MM_HINT_T0);
    _mm_prefetch(data + i + 8256, _MM_HINT_T0);
    for (int j = 0; j < 4; ++j) {
      const __m256i line = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + i + j * 32));
      sum[j] = _mm256_xor_si256(sum[j], line);
    }
  }
  for (const __m256i& part : sum) __asm__ volatile("" : : "x"(part));
}

}  // namespace gatehouse::bench
