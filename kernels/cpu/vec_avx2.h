// Eight f32 lanes in one AVX register. Included by isa_avx2.cc and isa_avx512.cc alone, which are
// compiled with -mavx2 -mfma or more: everything lies in an anonymous namespace, or the linker
// might keep their copy of an inline function for a processor without AVX2. vec_portable.h has the
// same interface and gives the same bits, operation by operation (infinities and NaN too, NaN
// payloads apart).
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace gatehouse::cpu {
namespace {

struct Avx2F32x8 {
  static constexpr int kLanes = 8;
  // 6 rows x 2 registers, 2 of weights, 1 of x, 1 constant: all 16 (gemm_kernels.h).
  static constexpr int kBlockRows = 6;

  __m256 v;

  static Avx2F32x8 Zero() { return {_mm256_setzero_ps()}; }
  static Avx2F32x8 Broadcast(float x) { return {_mm256_set1_ps(x)}; }
  static Avx2F32x8 Load(const float* p) { return {_mm256_loadu_ps(p)}; }
  // The first `count` (0..8) lanes; the others are 0. Reads nothing beyond them.
  static Avx2F32x8 LoadFirst(const float* p, int count) {
    return count == 8 ? Load(p) : Avx2F32x8{_mm256_maskload_ps(p, FirstLanes(count))};
  }
  // Eight bf16 values in a row, widened.
  static Avx2F32x8 LoadBF16(const uint16_t* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
  }
  static Avx2F32x8 LoadI8(const int8_t* p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))};
  }
  // The first (second) of each of eight pairs of bf16: what the packed layout stores (packed.h).
  static Avx2F32x8 LoadBF16First(const uint16_t* pairs) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(LoadBits(pairs), 16))};
  }
  static Avx2F32x8 LoadBF16Second(const uint16_t* pairs) {
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    return {_mm256_castsi256_ps(_mm256_and_si256(LoadBits(pairs), high))};
  }

  void Store(float* p) const { _mm256_storeu_ps(p, v); }
  // Writes the first `count` (0..8) lanes only. All eight as one plain store: a masked one takes
  // some 40 operations on Zen 3.
  void StoreFirst(float* p, int count) const {
    if (count == 8) {
      Store(p);
    } else {
      _mm256_maskstore_ps(p, FirstLanes(count), v);
    }
  }

 private:
  static __m256i LoadBits(const uint16_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static __m256i FirstLanes(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
};

inline Avx2F32x8 Add(Avx2F32x8 a, Avx2F32x8 b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Avx2F32x8 Sub(Avx2F32x8 a, Avx2F32x8 b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Avx2F32x8 Mul(Avx2F32x8 a, Avx2F32x8 b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Avx2F32x8 Div(Avx2F32x8 a, Avx2F32x8 b) { return {_mm256_div_ps(a.v, b.v)}; }
// a * b + c, rounded once.
inline Avx2F32x8 Fma(Avx2F32x8 a, Avx2F32x8 b, Avx2F32x8 c) {
  return {_mm256_fmadd_ps(a.v, b.v, c.v)};
}
// The second operand if either is NaN or both are zero: write Max(limit, x) to let NaN through.
inline Avx2F32x8 Max(Avx2F32x8 a, Avx2F32x8 b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Avx2F32x8 Min(Avx2F32x8 a, Avx2F32x8 b) { return {_mm256_min_ps(a.v, b.v)}; }

// sum = a * b + sum in place. As an instruction of its own, because g++ 12 lets the sums of a long
// loop wander between registers and then spills some at each step.
inline void AddProduct(Avx2F32x8 a, Avx2F32x8 b, Avx2F32x8& sum) {
  __asm__("vfmadd231ps %2, %1, %0" : "+x"(sum.v) : "x"(a.v), "x"(b.v));
}

// Lane j of rows[i] becomes lane i of rows[j].
inline void Transpose(Avx2F32x8 (&rows)[8]) {
  __m256 pairs[8], quads[8];
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(rows[i].v, rows[i + 1].v);
    pairs[i + 1] = _mm256_unpackhi_ps(rows[i].v, rows[i + 1].v);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; ++j) {
      quads[i + 2 * j] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0x44);
      quads[i + 2 * j + 1] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0xee);
    }
  }
  for (int i = 0; i < 4; ++i) {
    rows[i].v = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20);
    rows[i + 4].v = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31);
  }
}

// ((0+4) + (2+6)) + ((1+5) + (3+7)), likewise the maximum.
inline float ReduceAdd(Avx2F32x8 x) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float ReduceMax(Avx2F32x8 x) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

// 2^n of each lane that holds 1.5 * 2^23 + n, -126 <= n <= 127 (see Exp).
inline Avx2F32x8 Pow2OfMagic(Avx2F32x8 x) {
  const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(x.v), 23);
  return {_mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(0x3f800000)))};
}

}  // namespace
}  // namespace gatehouse::cpu
