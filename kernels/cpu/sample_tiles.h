// The passes of sampling over one row of logits, of one instruction set.
#pragma once

#include <cstdint>

namespace gatehouse::cpu {

struct LogitRange {
  float smallest = 0;
  float largest = 0;
  bool finite = false;  // if not, the other two mean nothing
};

// A logit z of [smallest, largest] has the distance s = (largest - z) / temperature >= 0, the mass
// e^-s in units of 2^-40, cut to a whole number, and the bucket round(s * buckets_per_unit). Masses
// are integers so that their sums are exact: no order of adding is better than another. Distance
// and bucket never fall as z falls, so buckets are in the order of the ranking.
struct Distance {
  float largest = 0;
  float inverse_temperature = 0;
  float buckets_per_unit = 0;
};
constexpr int kNumBuckets = 512;
constexpr float kMassUnits = 0x1p40f;
constexpr float kMaxDistance = 28;  // e^-28 is less than one unit

struct Bucket {
  uint64_t mass = 0;
  int64_t count = 0;  // of tokens with a mass
};

// Without initial values: room for a vocabulary of them is never touched as a whole.
struct RankedToken {
  float logit;
  int32_t idx;  // place in the row of logits
  uint64_t mass;
  float distance;
};

struct BucketRange {
  int first = 0, last = 0;  // both included
};

struct SampleKernels {
  // -infinity counts as not finite, and as smallest or largest.
  LogitRange (*range)(const float* z, int64_t n);
  double (*exp_sum)(const float* z, int64_t n, float largest);  // of e^(z - largest)
  // Indices of the `count` largest logits above -infinity, in order, ties to the lower; how many.
  int (*top)(const float* z, int64_t n, int count, int32_t* idx);
  // Adds every token with a mass to its bucket.
  void (*histogram)(const float* z, int64_t n, const Distance& distance, Bucket* buckets);
  // Tokens with a mass in the buckets of the range, by ascending index; how many.
  int64_t (*collect)(const float* z, int64_t n, const Distance& distance, BucketRange range,
                     RankedToken* tokens);
};

}  // namespace gatehouse::cpu
