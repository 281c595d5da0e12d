// Passes over a vocabulary, eight logits at a time; what few lanes need is done one by one.
// Included, after the header of V, by the files isa_*.cc only.
#pragma once

#include <cstdint>

#include "kernels/cpu/row_kernels.h"
#include "kernels/cpu/sample_tiles.h"
#include "kernels/cpu/vec_math.h"

namespace gatehouse::cpu {
namespace {

template <typename V>
LogitRange FindRange(const float* z, int64_t n) {
  V zeros = V::Zero();  // stays 0 unless 0 * infinity or 0 * NaN comes along
  V largest = V::Broadcast(z[0]), negated = Sub(V::Zero(), largest);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const V part = V::Load(z + i);
    zeros = Fma(part, V::Zero(), zeros);
    largest = Max(largest, part);
    negated = Max(negated, Sub(V::Zero(), part));
  }
  const V tail = V::LoadFirst(z + i, static_cast<int>(n - i));
  LogitRange range;
  range.finite = ReduceAdd(Fma(tail, V::Zero(), zeros)) == 0;
  range.largest = ReduceMax(largest);
  range.smallest = -ReduceMax(negated);
  for (; i < n; ++i) {
    range.largest = z[i] > range.largest ? z[i] : range.largest;
    range.smallest = z[i] < range.smallest ? z[i] : range.smallest;
  }
  return range;
}

// Eight terms a lane in f32, then double: a rounding error of 2^-21 at most, at no cost.
template <typename V>
double ExpSum(const float* z, int64_t n, float largest) {
  double sums[8] = {};
  float lanes[8];
  const auto flush = [&](V part) {
    part.Store(lanes);
    for (int i = 0; i < 8; ++i) sums[i] += lanes[i];
  };
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    V part = V::Zero();
    for (int j = 0; j < 64; j += 8) {
      part = Add(part, Exp(Sub(V::Load(z + i + j), V::Broadcast(largest))));
    }
    flush(part);
  }
  ForEachEight(n - i, [&](int64_t j, int count) {
    Exp(Sub(V::LoadFirst(z + i + j, count), V::Broadcast(largest))).Store(lanes);
    flush(V::LoadFirst(lanes, count));
  });
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

// Puts idx in its place among `num_found` of at most `count`; an equal earlier logit stays before.
inline int InsertTop(const float* z, int64_t idx, int num_found, int count, int32_t* top) {
  if (num_found == count && !(z[idx] > z[top[count - 1]])) return num_found;
  int slot = num_found < count ? num_found++ : count - 1;
  for (; slot > 0 && z[idx] > z[top[slot - 1]]; --slot) top[slot] = top[slot - 1];
  top[slot] = static_cast<int32_t>(idx);
  return num_found;
}

template <typename V>
int FindTop(const float* z, int64_t n, int count, int32_t* top) {
  if (count == 0) return 0;
  int num_found = 0;
  for (int64_t i = 0; i < n; i += 64) {
    const int block = n - i < 64 ? static_cast<int>(n - i) : 64;
    if (num_found == count && block == 64) {
      V largest = V::Load(z + i);
      for (int j = 8; j < 64; j += 8) largest = Max(largest, V::Load(z + i + j));
      if (!(ReduceMax(largest) > z[top[count - 1]])) continue;
    }
    for (int64_t j = i; j < i + block; ++j) {
      if (z[j] > -__builtin_inff()) num_found = InsertTop(z, j, num_found, count, top);
    }
  }
  return num_found;
}

template <typename V>
inline V DistanceOf(V z, const Distance& distance) {
  return Mul(Sub(V::Broadcast(distance.largest), z), V::Broadcast(distance.inverse_temperature));
}

// The bucket as a float.
template <typename V>
inline V BucketOf(V s, const Distance& distance) {
  constexpr float kLast = kNumBuckets - 1, kRound = 8388608.0f;  // 2^23: adding it rounds
  const V scaled = Min(Mul(s, V::Broadcast(distance.buckets_per_unit)), V::Broadcast(kLast));
  return Sub(Add(scaled, V::Broadcast(kRound)), V::Broadcast(kRound));
}

struct EightTokens {
  float distance[8], mass[8], bucket[8];  // mass in units, not yet cut
};

// False if no lane has a mass.
template <typename V>
inline bool Weigh(V z, const Distance& distance, EightTokens& tokens) {
  const V s = DistanceOf(z, distance);
  const V mass = Mul(Exp(Sub(V::Zero(), s)), V::Broadcast(kMassUnits));
  if (!(ReduceMax(mass) >= 1)) return false;
  s.Store(tokens.distance);
  mass.Store(tokens.mass);
  BucketOf(s, distance).Store(tokens.bucket);
  return true;
}

template <typename V>
void AddToHistogram(const float* z, int64_t n, const Distance& distance, Bucket* buckets) {
  ForEachEight(n, [&](int64_t i, int count) {
    EightTokens tokens;
    const V part = count == 8 ? V::Load(z + i) : V::LoadFirst(z + i, count);
    if (!Weigh(part, distance, tokens)) return;
    for (int j = 0; j < count; ++j) {
      const uint64_t mass = static_cast<uint64_t>(static_cast<int64_t>(tokens.mass[j]));
      Bucket& bucket = buckets[static_cast<int>(tokens.bucket[j])];
      bucket.mass += mass;
      bucket.count += mass > 0;
    }
  });
}

template <typename V>
int64_t CollectTokens(const float* z, int64_t n, const Distance& distance, BucketRange range,
                      RankedToken* tokens) {
  const float first = static_cast<float>(range.first), last = static_cast<float>(range.last);
  const V middle = V::Broadcast((first + last) / 2);
  const float half_width = (last - first) / 2;  // exact, like the middle: halves of small integers
  int64_t num_tokens = 0;
  ForEachEight(n, [&](int64_t i, int count) {
    const V part = count == 8 ? V::Load(z + i) : V::LoadFirst(z + i, count);
    const V offset = Sub(BucketOf(DistanceOf(part, distance), distance), middle);
    const V nearness = Sub(V::Zero(), Max(offset, Sub(V::Zero(), offset)));
    EightTokens eight;
    if (!(ReduceMax(nearness) >= -half_width) || !Weigh(part, distance, eight)) return;
    for (int j = 0; j < count; ++j) {
      const uint64_t mass = static_cast<uint64_t>(static_cast<int64_t>(eight.mass[j]));
      if (mass == 0 || eight.bucket[j] < first || eight.bucket[j] > last) continue;
      tokens[num_tokens++] = {z[i + j], static_cast<int32_t>(i + j), mass, eight.distance[j]};
    }
  });
  return num_tokens;
}

template <typename V>
constexpr SampleKernels MakeSampleKernels() {
  return {.range = FindRange<V>,
          .exp_sum = ExpSum<V>,
          .top = FindTop<V>,
          .histogram = AddToHistogram<V>,
          .collect = CollectTokens<V>};
}

}  // namespace
}  // namespace gatehouse::cpu
