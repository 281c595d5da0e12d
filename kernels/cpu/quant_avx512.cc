// Products of quantised weights with AVX-512 VNNI, in two ways that give the same bits. From some
// rows on the weights stand still: the 32 x 32 codes of a group lie in 16 registers and the rows
// pass by, so int4 is unpacked once a group and tile. For few rows of int8 the sums stand still.
//
// Has flags of its own: include nothing here with inline functions that other files include too.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/cpu/packed_layout.h"
#include "kernels/cpu/quant_256.h"
#include "kernels/cpu/quant_tiles.h"

namespace gatehouse::cpu {
namespace {

// How far ahead of its use the panel stream is fetched, found by trial: without it, rates fall to a
// quarter where a weight meets few rows.
constexpr int kInt8Ahead = 16 << 10, kInt4Ahead = 8 << 10;
constexpr int kSteps = kGroupInputs / 4;

// From memory: a broadcast out of a general register costs two operations more.
inline __m512i BroadcastQuad512(const char* p) {
  int32_t bits;
  std::memcpy(&bits, p, 4);
  return _mm512_set1_epi32(bits);
}

inline __m512 LoadScales512(const char* p) {
  const __m256i bits = _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

struct Int8Codes {
  static constexpr int kBytes = kInt8GroupBytes, kAhead = kInt8Ahead, kOffsetBits = 7;
  static void Load(const char* group, __m512i (&w)[kSteps][2]) {
    for (int i = 0; i < 2 * kSteps; ++i) w[i / 2][i % 2] = _mm512_load_si512(group + i * 64);
  }
};
struct Int4Codes {
  static constexpr int kBytes = kInt4GroupBytes, kAhead = kInt4Ahead, kOffsetBits = 3;
  static void Load(const char* group, __m512i (&w)[kSteps][2]) {
    const __m512i low = _mm512_set1_epi8(15);
    for (int i = 0; i < kSteps; ++i) {
      const __m512i both = _mm512_load_si512(group + i * 64);
      w[i / 2][i % 2] = _mm512_and_si512(both, low);
      w[i / 2 + 4][i % 2] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
  }
};

// Adds a group's exact sums to the row's.
inline __attribute__((always_inline)) void AddScaled(const QuantTile& tile, int64_t g, int row,
                                                     const __m512 (&scales)[2],
                                                     const __m512i (&sums)[2]) {
  float x_scale;
  std::memcpy(&x_scale, tile.rows[row] + QuantScalesAt(tile.num_groups) + g * 4, 4);
  const __m512 factor = _mm512_set1_ps(x_scale);
  for (int c = 0; c < 2; ++c) {
    float* out = tile.sums + row * kPanelCols + c * 16;
    const __m512 scale = _mm512_mul_ps(scales[c], factor);
    _mm512_store_ps(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[c]), scale, _mm512_load_ps(out)));
  }
}

template <typename Codes, int kNumRows>
inline __attribute__((always_inline)) void PassRows(const QuantTile& tile, int64_t g, int first,
                                                    const __m512i (&w)[kSteps][2],
                                                    const __m512 (&scales)[2]) {
  __m512i sums[kNumRows][2];
  const char* x[kNumRows];
  for (int r = 0; r < kNumRows; ++r) {
    const char* record = tile.rows[first + r];
    x[r] = record + g * kGroupInputs;
    const __m512i neg_sum = BroadcastQuad512(record + QuantSumsAt(tile.num_groups) + g * 4);
    sums[r][0] = sums[r][1] = _mm512_slli_epi32(neg_sum, Codes::kOffsetBits);
  }
  for (int s = 0; s < kSteps; ++s) {
    for (int r = 0; r < kNumRows; ++r) {
      const __m512i quad = BroadcastQuad512(x[r] + s * 4);
      sums[r][0] = _mm512_dpbusd_epi32(sums[r][0], w[s][0], quad);
      sums[r][1] = _mm512_dpbusd_epi32(sums[r][1], w[s][1], quad);
    }
  }
  for (int r = 0; r < kNumRows; ++r) AddScaled(tile, g, first + r, scales, sums[r]);
}

inline void ClearSums(const QuantTile& tile) {
  for (int i = 0; i < tile.num_rows * kPanelCols; i += 16) {
    _mm512_store_ps(tile.sums + i, _mm512_setzero_ps());
  }
}

template <typename Codes>
void SumStationary(const QuantTile& tile) {
  ClearSums(tile);
  const char* group = static_cast<const char*>(tile.panel);
  for (int64_t g = 0; g < tile.num_groups; ++g, group += Codes::kBytes) {
    for (int i = 0; i < Codes::kBytes; i += 64) __builtin_prefetch(group + Codes::kAhead + i);
    __m512i w[kSteps][2];
    Codes::Load(group, w);
    const char* bits = group + Codes::kBytes - kScaleBytes;
    const __m512 scales[2] = {LoadScales512(bits), LoadScales512(bits + 32)};
    int r = 0;
    for (; r + 4 <= tile.num_rows; r += 4) PassRows<Codes, 4>(tile, g, r, w, scales);
    if (tile.num_rows - r == 3) PassRows<Codes, 3>(tile, g, r, w, scales);
    if (tile.num_rows - r == 2) PassRows<Codes, 2>(tile, g, r, w, scales);
    if (tile.num_rows - r == 1) PassRows<Codes, 1>(tile, g, r, w, scales);
  }
}

template <int kNumRows>
void SumFewRows(const QuantTile& tile) {
  ClearSums(tile);
  const char* group = static_cast<const char*>(tile.panel);
  for (int64_t g = 0; g < tile.num_groups; ++g, group += kInt8GroupBytes) {
    for (int i = 0; i < kInt8GroupBytes; i += 64) __builtin_prefetch(group + kInt8Ahead + i);
    __m512i sums[kNumRows][2];
    for (int r = 0; r < kNumRows; ++r) {
      const char* neg_sum = tile.rows[r] + QuantSumsAt(tile.num_groups) + g * 4;
      sums[r][0] = sums[r][1] =
          _mm512_slli_epi32(BroadcastQuad512(neg_sum), Int8Codes::kOffsetBits);
    }
    for (int s = 0; s < kSteps; ++s) {
      const __m512i w0 = _mm512_load_si512(group + s * kPanelStepBytes);
      const __m512i w1 = _mm512_load_si512(group + s * kPanelStepBytes + 64);
      for (int r = 0; r < kNumRows; ++r) {
        const __m512i quad = BroadcastQuad512(tile.rows[r] + g * kGroupInputs + s * 4);
        sums[r][0] = _mm512_dpbusd_epi32(sums[r][0], w0, quad);
        sums[r][1] = _mm512_dpbusd_epi32(sums[r][1], w1, quad);
      }
    }
    const char* bits = group + kInt8GroupBytes - kScaleBytes;
    const __m512 scales[2] = {LoadScales512(bits), LoadScales512(bits + 32)};
    for (int r = 0; r < kNumRows; ++r) AddScaled(tile, g, r, scales, sums[r]);
  }
}

void SumInt8(const QuantTile& tile) {
  using SumFn = void (*)(const QuantTile&);
  static constexpr SumFn kFewRows[] = {SumFewRows<1>, SumFewRows<2>, SumFewRows<3>, SumFewRows<4>,
                                       SumFewRows<5>, SumFewRows<6>, SumFewRows<7>, SumFewRows<8>};
  (tile.num_rows <= 8 ? kFewRows[tile.num_rows - 1] : SumStationary<Int8Codes>)(tile);
}

}  // namespace

const QuantKernels& Avx512QuantKernels() {
  static constexpr QuantKernels kKernels{
      .quantise = Quantise256, .sum_int8 = SumInt8, .sum_int4 = SumStationary<Int4Codes>};
  return kKernels;
}

}  // namespace gatehouse::cpu
