// Norms, rotation, softmax and the sum of expert rows, on lanes. A sum over a row is kept in lanes
// by column (mod 32 or mod 8) and folded once at the end: one order for every instruction set.
// Included, after the header of V, by the files isa_*.cc only.
#pragma once

#include <cstdint>

#include "kernels/cpu/row_tiles.h"
#include "kernels/cpu/vec_math.h"

namespace gatehouse::cpu {
namespace {

// Calls part(c, count) for the columns [c, c + count) of [0, n), count 8 but for the last.
template <typename Part>
inline void ForEachEight(int64_t n, const Part& part) {
  for (int64_t c = 0; c < n; c += 8) part(c, n - c < 8 ? static_cast<int>(n - c) : 8);
}

// Sum of part(lanes, chain) over the row, where part adds eight columns to its chain: four chains
// hide the latency.
template <typename V, typename Part>
float SumRow(const float* x, int64_t n, const Part& part) {
  V sums[4] = {V::Zero(), V::Zero(), V::Zero(), V::Zero()};
  int64_t c = 0;
  for (; c + 32 <= n; c += 32) {
    for (int i = 0; i < 4; ++i) sums[i] = part(V::Load(x + c + i * 8), sums[i]);
  }
  ForEachEight(n - c, [&](int64_t i, int count) {
    sums[0] = part(V::LoadFirst(x + c + i, count), sums[0]);
  });
  return ReduceAdd(Add(Add(sums[0], sums[1]), Add(sums[2], sums[3])));
}

template <typename V>
float SumOf(const float* x, int64_t n) {
  return SumRow<V>(x, n, [](V lanes, V sum) { return Add(sum, lanes); });
}

template <typename V>
float SumSquares(const float* x, int64_t n) {
  return SumRow<V>(x, n, [](V lanes, V sum) { return Fma(lanes, lanes, sum); });
}

template <typename V>
void RmsNormRow(const float* x, const float* weight, float eps, float* out, int64_t n) {
  const float sum = SumSquares<V>(x, n);
  const V inverse = V::Broadcast(1 / __builtin_sqrtf(sum / static_cast<float>(n) + eps));
  ForEachEight(n, [&](int64_t i, int count) {
    const V scaled = Mul(V::LoadFirst(x + i, count), inverse);
    Mul(scaled, V::LoadFirst(weight + i, count)).StoreFirst(out + i, count);
  });
}

template <typename V>
void RotateHead(const float* cos_sin, int64_t rotary_dim, float* head) {
  const int64_t half = rotary_dim / 2;
  ForEachEight(half, [&](int64_t i, int count) {
    const V a = V::LoadFirst(head + i, count), b = V::LoadFirst(head + half + i, count);
    const V cosine = V::LoadFirst(cos_sin + i, count);
    const V sine = V::LoadFirst(cos_sin + half + i, count);
    Sub(Mul(a, cosine), Mul(b, sine)).StoreFirst(head + i, count);
    Add(Mul(b, cosine), Mul(a, sine)).StoreFirst(head + half + i, count);
  });
}

template <typename V>
bool AllFinite(const float* x, int64_t n) {
  V zeros = V::Zero();  // stays 0 unless 0 * infinity or 0 * NaN comes along
  ForEachEight(
      n, [&](int64_t i, int count) { zeros = Fma(V::LoadFirst(x + i, count), V::Zero(), zeros); });
  return ReduceAdd(zeros) == 0;
}

template <typename V>
bool SigmoidRow(const float* logits, float* p, int64_t n) {
  const V one = V::Broadcast(1);
  ForEachEight(n, [&](int64_t i, int count) {
    const V negative = Sub(V::Zero(), V::LoadFirst(logits + i, count));
    Div(one, Add(one, Exp(negative))).StoreFirst(p + i, count);
  });
  return AllFinite<V>(logits, n);
}

template <typename V>
bool SoftmaxRow(const float* logits, float* p, int64_t n) {
  float largest = logits[0];
  for (int64_t i = 0; i < n; ++i) largest = logits[i] > largest ? logits[i] : largest;
  if (!AllFinite<V>(logits, n)) return false;
  V sums = V::Zero();
  ForEachEight(n, [&](int64_t i, int count) {
    Exp(Sub(V::LoadFirst(logits + i, count), V::Broadcast(largest))).StoreFirst(p + i, count);
    sums = Add(sums, V::LoadFirst(p + i, count));
  });
  const V total = V::Broadcast(ReduceAdd(sums));
  ForEachEight(n, [&](int64_t i, int count) {
    Div(V::LoadFirst(p + i, count), total).StoreFirst(p + i, count);
  });
  return true;
}

template <typename V>
void CombineRow(const CombineTile& tile) {
  ForEachEight(tile.num_cols, [&](int64_t c, int count) {
    V y = V::Zero();
    for (int64_t i = 0; i < tile.count; ++i) {
      const float* row = tile.expert_rows + tile.assignment_ids[i] * tile.stride;
      y = Fma(V::Broadcast(tile.weights[i]), V::LoadFirst(row + c, count), y);
    }
    y.StoreFirst(tile.out + c, count);
  });
}

template <typename V>
constexpr RowKernels MakeRowKernels() {
  return {.sum = SumOf<V>,
          .sum_squares = SumSquares<V>,
          .rms_norm = RmsNormRow<V>,
          .rotate = RotateHead<V>,
          .softmax = SoftmaxRow<V>,
          .sigmoid = SigmoidRow<V>,
          .combine = CombineRow<V>};
}

}  // namespace
}  // namespace gatehouse::cpu
