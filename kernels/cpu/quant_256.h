// Products of quantised weights in 256-bit registers. A group of 32 inputs at a time: its codes, of
// int4 unpacked to the stack first, meet all rows of the tile in blocks of 4 rows x 16 columns. How
// the 32 products of a column are summed is the type Way; all are exact, so all give the same bits.
// Included by files with flags of their own only.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/cpu/packed_layout.h"
#include "kernels/cpu/quant_tiles.h"

namespace gatehouse::cpu {
namespace {

inline __m256i BroadcastQuad(const char* p) {
  int32_t bits;
  std::memcpy(&bits, p, 4);
  return _mm256_set1_epi32(bits);
}

// 8 bf16 scales, widened.
inline __m256 LoadScales(const char* p) {
  const __m128i bits = _mm_load_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

// int8: |w| times x with the sign of w, w = code - 128. A pair is at most 2 * 128 * 127 < 2^15, so
// vpmaddubsw does not saturate as it would with the codes themselves.
struct SignedBytes {
  static constexpr bool kInt4 = false;
  static __m256i First(const char* /*neg_sum*/) { return _mm256_setzero_si256(); }
  struct Weights {
    __m256i magnitude, sign;
  };
  static Weights Load(const char* p) {
    const __m256i codes = _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
    const __m256i values = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
    return {_mm256_abs_epi8(values), values};
  }
  static __m256i Add(__m256i sum, const Weights& w, __m256i x) {
    const __m256i pairs = _mm256_maddubs_epi16(w.magnitude, _mm256_sign_epi8(x, w.sign));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  static __m256i Last(__m256i sum, const char* /*neg_sum*/) { return sum; }
};

// int4: a pair is at most 2 * 15 * 127 = 3810 and eight of them 30480, so the steps of a group are
// summed in 16 bits and widened once.
struct NarrowSums {
  static constexpr bool kInt4 = true;
  static __m256i First(const char* /*neg_sum*/) { return _mm256_setzero_si256(); }
  using Weights = __m256i;
  static Weights Load(const char* p) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
  }
  static __m256i Add(__m256i sum, Weights w, __m256i x) {
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
  }
  static __m256i Last(__m256i sum, const char* neg_sum) {
    const __m256i wide = _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
    return _mm256_add_epi32(wide, _mm256_slli_epi32(BroadcastQuad(neg_sum), 3));  // offset 8
  }
};

struct QuantGroup {
  const char* codes;  // steps of 128 bytes, from the first of 16 columns on
  __m256 scales[2];
  int64_t index;
  int64_t num_groups;
};

template <typename Way, int kNumRows>
inline __attribute__((always_inline)) void AddRows(const QuantGroup& group, const char* const* rows,
                                                   float* sums) {
  // Copies, or g++ 12 reads them again at each step for the memory clobber below.
  const char* const codes = group.codes;
  const char* x[kNumRows];
  const char* neg_sums[kNumRows];
  __m256i s[kNumRows][2];
  for (int r = 0; r < kNumRows; ++r) {
    x[r] = rows[r] + group.index * kGroupInputs;
    neg_sums[r] = rows[r] + QuantSumsAt(group.num_groups) + group.index * 4;
    s[r][0] = s[r][1] = Way::First(neg_sums[r]);
  }
#pragma GCC unroll 8
  for (int step = 0; step < kGroupInputs / 4; ++step) {
    // Keeps g++ 12 from doing all loads and products of the group first, each spilled to the stack.
    for (int r = 0; r < kNumRows; ++r) {
      __asm__ volatile("" : "+x"(s[r][0]), "+x"(s[r][1]) : : "memory");
    }
    const auto w0 = Way::Load(codes + step * kPanelStepBytes);
    const auto w1 = Way::Load(codes + step * kPanelStepBytes + 32);
    for (int r = 0; r < kNumRows; ++r) {
      const __m256i quad = BroadcastQuad(x[r] + step * 4);
      s[r][0] = Way::Add(s[r][0], w0, quad);
      s[r][1] = Way::Add(s[r][1], w1, quad);
    }
  }
  for (int r = 0; r < kNumRows; ++r) {
    float x_scale;
    std::memcpy(&x_scale, rows[r] + QuantScalesAt(group.num_groups) + group.index * 4, 4);
    for (int c = 0; c < 2; ++c) {
      const __m256 sum = _mm256_cvtepi32_ps(Way::Last(s[r][c], neg_sums[r]));
      const __m256 scale = _mm256_mul_ps(group.scales[c], _mm256_set1_ps(x_scale));
      float* out = sums + r * kPanelCols + c * 8;
      _mm256_store_ps(out, _mm256_fmadd_ps(sum, scale, _mm256_load_ps(out)));
    }
  }
}

// 1024 codes of a group in the order of int8.
inline const char* Unpack(const char* group, char* unpacked) {
  constexpr int kHalf = 4 * kPanelStepBytes;
  const __m256i low = _mm256_set1_epi8(15);
  for (int i = 0; i < kHalf; i += 32) {
    const __m256i both = _mm256_load_si256(reinterpret_cast<const __m256i*>(group + i));
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
    _mm256_store_si256(reinterpret_cast<__m256i*>(unpacked + i), _mm256_and_si256(both, low));
    _mm256_store_si256(reinterpret_cast<__m256i*>(unpacked + kHalf + i), high);
  }
  return unpacked;
}

template <typename Way>
void Sum256(const QuantTile& tile) {
  constexpr int kBytes = Way::kInt4 ? kInt4GroupBytes : kInt8GroupBytes;
  constexpr int kAhead = (Way::kInt4 ? 8 : 16) << 10;
  constexpr int kScales = kBytes - kScaleBytes;
  for (int i = 0; i < tile.num_rows * kPanelCols; i += 8) {
    _mm256_store_ps(tile.sums + i, _mm256_setzero_ps());
  }
  const char* panel = static_cast<const char*>(tile.panel);
  for (int64_t g = 0; g < tile.num_groups; ++g, panel += kBytes) {
    for (int i = 0; i < kBytes; i += 64) __builtin_prefetch(panel + kAhead + i);
    alignas(64) char unpacked[Way::kInt4 ? kGroupInputs * kPanelCols : 1];
    const char* codes = panel;
    if constexpr (Way::kInt4) codes = Unpack(panel, unpacked);
    for (int half = 0; half < 2; ++half) {
      const char* scales = panel + kScales + half * 32;
      const QuantGroup group{
          codes + half * 64, {LoadScales(scales), LoadScales(scales + 16)}, g, tile.num_groups};
      float* sums = tile.sums + half * 16;
      int r = 0;
      for (; r + 4 <= tile.num_rows; r += 4) {
        AddRows<Way, 4>(group, tile.rows + r, sums + r * kPanelCols);
      }
      const char* const* rest = tile.rows + r;
      if (tile.num_rows - r == 3) AddRows<Way, 3>(group, rest, sums + r * kPanelCols);
      if (tile.num_rows - r == 2) AddRows<Way, 2>(group, rest, sums + r * kPanelCols);
      if (tile.num_rows - r == 1) AddRows<Way, 1>(group, rest, sums + r * kPanelCols);
    }
  }
}

inline int32_t LargestOf(__m256i x) {
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
}
inline int32_t SumOf32(__m256i x) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

struct GroupScales {
  float scale, inverse;
};
// From the bits of the largest magnitude, which are in the order of the magnitudes, infinity and
// NaN last.
inline GroupScales ScalesOf(int32_t largest_bits) {
  constexpr int32_t kInfinity = 0x7f800000, kLeast = (127 - 100) << 23;  // 2^-100
  if (largest_bits >= kInfinity) return {__builtin_nanf(""), 0};
  if (largest_bits < kLeast) return {0, 0};
  float largest;
  std::memcpy(&largest, &largest_bits, 4);
  return {largest / 127, 127 / largest};
}

inline void Quantise256Group(const float* x, int64_t group, int64_t num_groups, char* record) {
  __m256 values[4];
  __m256i largest = _mm256_setzero_si256();
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  for (int i = 0; i < 4; ++i) {
    values[i] = _mm256_loadu_ps(x + i * 8);
    largest =
        _mm256_max_epi32(largest, _mm256_and_si256(_mm256_castps_si256(values[i]), magnitude));
  }
  const GroupScales scales = ScalesOf(LargestOf(largest));
  __m256i codes[4] = {}, sum = _mm256_setzero_si256();
  // Not 0 * infinity: a group that is not finite has codes 0.
  for (int i = 0; scales.inverse != 0 && i < 4; ++i) {
    codes[i] = _mm256_cvtps_epi32(_mm256_mul_ps(values[i], _mm256_set1_ps(scales.inverse)));
    sum = _mm256_add_epi32(sum, codes[i]);
  }
  const int32_t neg_sum = -SumOf32(sum);
  // Packing works within halves of a register: put the quads back in order.
  const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(codes[0], codes[1]),
                                            _mm256_packs_epi32(codes[2], codes[3]));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(record + group * kGroupInputs),
                      _mm256_permutevar8x32_epi32(packed, order));
  std::memcpy(record + QuantScalesAt(num_groups) + group * 4, &scales.scale, 4);
  std::memcpy(record + QuantSumsAt(num_groups) + group * 4, &neg_sum, 4);
}

inline void Quantise256(const float* x, int64_t count, int64_t first_group, int64_t num_groups,
                        char* record) {
  int64_t group = first_group;
  for (; count >= kGroupInputs; count -= kGroupInputs, x += kGroupInputs) {
    Quantise256Group(x, group++, num_groups, record);
  }
  if (count == 0) return;
  float filled[kGroupInputs] = {};
  std::memcpy(filled, x, static_cast<size_t>(count) * 4);
  Quantise256Group(filled, group, num_groups, record);
}

}  // namespace
}  // namespace gatehouse::cpu
