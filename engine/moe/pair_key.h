// R8 of docs/routing.md: the one order in which pairs are kept, evicted, rerouted and covered.
#pragma once

#include <cstdint>

#include "engine/moe/bounded_router.h"

namespace gatehouse {

// The smaller key comes first wherever a rule says first, best, last or worst.
struct PairKey {
  uint64_t rank = 0;  // the tier, then what takes the place of -a, as one ascending number
  uint64_t tie_key = 0;
  int32_t expert = 0;
  friend bool operator<(const PairKey& a, const PairKey& b) {
    if (a.rank != b.rank) return a.rank < b.rank;
    if (a.tie_key != b.tie_key) return a.tie_key < b.tie_key;
    return a.expert < b.expert;
  }
};

// The pair of `row` and the expert at place `rank_idx` of its ranking. `slot`: top_k for a rerouted
// pair. Ties within a block go by position, so that nothing outside the block decides.
struct RankedPair {
  int32_t row = 0;
  int32_t slot = 0;
  int32_t rank_idx = 0;
};
PairKey KeyOf(const RoutingStep& step, const RoutingPolicy& policy, const RankedPair& pair,
              bool in_block);

}  // namespace gatehouse
