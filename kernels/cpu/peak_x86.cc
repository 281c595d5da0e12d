// Written as assembly: with intrinsics the compiler merges equal products and the peak comes out
// too high. Twelve chains hide the latency of every one of these instructions.
#include <immintrin.h>

#include "kernels/cpu/peak.h"

namespace gatehouse::cpu {
namespace {

#define GATEHOUSE_TWELVE(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define GATEHOUSE_CLEAR(n) "vpxor %%xmm" #n ", %%xmm" #n ", %%xmm" #n "\n\t"
// Zeros in all registers: what lay there may be denormal numbers, which cost ten times as much.
#define GATEHOUSE_PEAK_LOOP(name, instructions, operations_each)                               \
  double name(int64_t num_rounds) {                                                            \
    int64_t left = num_rounds;                                                                 \
    __asm__ volatile(GATEHOUSE_TWELVE(GATEHOUSE_CLEAR) GATEHOUSE_CLEAR(12)                     \
                         GATEHOUSE_CLEAR(13) "1:\n\t" GATEHOUSE_TWELVE(                        \
                             instructions) "dec %0\n\tjnz 1b\n\tvzeroupper\n\t"                \
                     : "+r"(left)                                                              \
                     :                                                                         \
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", \
                       "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc");    \
    return static_cast<double>(num_rounds) * 12 * (operations_each);                           \
  }

#define GATEHOUSE_FMA_256(n) "vfmadd231ps %%ymm12, %%ymm13, %%ymm" #n "\n\t"
#define GATEHOUSE_FMA_512(n) "vfmadd231ps %%zmm12, %%zmm13, %%zmm" #n "\n\t"
#define GATEHOUSE_VNNI_256(n) "%{vex%} vpdpbusd %%ymm12, %%ymm13, %%ymm" #n "\n\t"
#define GATEHOUSE_VNNI_512(n) "vpdpbusd %%zmm12, %%zmm13, %%zmm" #n "\n\t"
// What stands for vpdpbusd where there is none.
#define GATEHOUSE_MADD_256(n)                \
  "vpmaddubsw %%ymm12, %%ymm13, %%ymm14\n\t" \
  "vpmaddwd %%ymm12, %%ymm14, %%ymm15\n\t"   \
  "vpaddd %%ymm15, %%ymm" #n ", %%ymm" #n "\n\t"

GATEHOUSE_PEAK_LOOP(Fma256, GATEHOUSE_FMA_256, 8 * 2)
GATEHOUSE_PEAK_LOOP(Fma512, GATEHOUSE_FMA_512, 16 * 2)
GATEHOUSE_PEAK_LOOP(Vnni256, GATEHOUSE_VNNI_256, 32 * 2)
GATEHOUSE_PEAK_LOOP(Vnni512, GATEHOUSE_VNNI_512, 64 * 2)
GATEHOUSE_PEAK_LOOP(Madd256, GATEHOUSE_MADD_256, 32 * 2)

__attribute__((target("avx2"))) void ReadAllAvx2(const char* data, size_t num_bytes) {
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

}  // namespace

PeakLoops PeakLoopsOf(std::string_view isa) {
  if (isa == "avx512") return {Fma512, Vnni512, ReadAllAvx2};
  if (isa == "avxvnni") return {Fma256, Vnni256, ReadAllAvx2};
  if (isa == "avx2") return {Fma256, Madd256, ReadAllAvx2};
  return GenericPeakLoops();
}

}  // namespace gatehouse::cpu
