// Sixteen f32 lanes in one AVX-512 register, for the sums of gemm_kernels.h. Included by
// isa_avx512.cc alone; an anonymous namespace for the reason in vec_avx2.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace gatehouse::cpu {
namespace {

struct Avx512F32x16 {
  static constexpr int kLanes = 16;
  // 12 rows x 2 registers, 2 of weights, 1 of x, 1 constant: 28 of 32.
  static constexpr int kBlockRows = 12;

  __m512 v;

  static Avx512F32x16 Zero() { return {_mm512_setzero_ps()}; }
  static Avx512F32x16 Broadcast(float x) { return {_mm512_set1_ps(x)}; }
  static Avx512F32x16 Load(const float* p) { return {_mm512_loadu_ps(p)}; }
  // The first (second) of each of sixteen pairs of bf16.
  static Avx512F32x16 LoadBF16First(const uint16_t* pairs) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(pairs), 16))};
  }
  static Avx512F32x16 LoadBF16Second(const uint16_t* pairs) {
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(pairs), high))};
  }
  void Store(float* p) const { _mm512_storeu_ps(p, v); }
};

// sum = a * b + sum in place (vec_avx2.h says why).
inline void AddProduct(Avx512F32x16 a, Avx512F32x16 b, Avx512F32x16& sum) {
  __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum.v) : "v"(a.v), "v"(b.v));
}

}  // namespace
}  // namespace gatehouse::cpu
