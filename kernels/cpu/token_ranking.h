// The tokens of one row in the order of their probabilities, without sorting them: a histogram of
// 512 buckets says in which bucket a place of the ranking, or a mass from the top, lies; that
// bucket alone is sorted. 150,000 tokens cost two passes over the logits instead of a sort.
//
// A head is the first so many tokens of the ranking (logit descending, ties to the lower index).
// Tokens of less than 2^-40 of the largest probability have no mass and no place. Not thread-safe;
// the logits must outlive it.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "kernels/cpu/sample_tiles.h"

namespace gatehouse::cpu {

class TokenRanking {
 public:
  struct Head {
    int64_t count = 0;
    uint64_t mass = 0;
    int32_t last_idx = 0;  // of its last token
  };

  // `largest` of the logits is finite; room for logits.size() tokens in `scratch`.
  TokenRanking(const SampleKernels& kernels, std::span<const float> logits, float temperature,
               RankedToken* scratch);

  Head All();
  Head FirstTokens(int64_t count);  // 1 <= count; all of them if there are fewer
  Head FirstMass(uint64_t mass);    // the shortest head with at least this mass, 1 <= mass
  Head Within(float distance);      // tokens no further than this from the first
  // The tokens of a head, in order; valid until the next call.
  std::span<RankedToken> Tokens(const Head& head);

 private:
  struct Place {  // a bucket, and what lies in those before it
    int bucket = 0;
    Head before;
  };
  std::span<RankedToken> Sorted(int bucket);
  Head Extend(const Place& place, int64_t count);  // by the first `count` of its bucket

  const SampleKernels& kernels_;
  const std::span<const float> logits_;
  RankedToken* const scratch_;
  Distance distance_;
  std::array<Bucket, kNumBuckets> buckets_{};
  int sorted_bucket_ = -1;  // whose tokens are in scratch_
};

}  // namespace gatehouse::cpu
