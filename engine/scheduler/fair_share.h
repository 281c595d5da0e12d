// How tenants share the machine: pure functions of what each has had and holds. By token cost, as
// the Virtual Token Counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI
// 2024), with weights; and by the larger share of two resources, places and blocks, as Dominant
// Resource Fairness of Ghodsi et al. (NSDI 2011), for who must give back what it holds.
//
//   weights 3 and 1, 64 places: shares of 48 and 16. While one tenant is alone it may hold all 64;
//   when the other comes it gets its 16 at once, and no more than that by force.
#pragma once

#include <cstdint>

namespace gatehouse {

struct TenantUse {
  int32_t weight = 1;
  double virtual_tokens = 0;  // tokens it was served, over its weight
  int64_t joined = 0;         // when it last began to wait: later is larger
  int32_t num_running = 0;
  int32_t num_blocks = 0;  // held by its running sequences, shared ones counted for each
};

struct SharedCapacity {
  int32_t num_places = 0;
  int32_t num_blocks = 0;
  int64_t total_weight = 0;  // of the tenants that have requests
};

// What `num_tokens` (prompt tokens computed, tokens generated) add to virtual_tokens. A token is a
// token: both are one row of a step.
inline double VirtualTokens(int64_t num_tokens, int32_t weight) {
  return static_cast<double>(num_tokens) / weight;
}

// Who is served first: who had less for its weight; of equals who came last, since the other has
// been served while it was away.
inline bool ServedBefore(const TenantUse& a, const TenantUse& b) {
  return a.virtual_tokens != b.virtual_tokens ? a.virtual_tokens < b.virtual_tokens
                                              : a.joined > b.joined;
}

// Whether the tenant stays within its share of both resources when it gets more.
inline bool FitsShare(const TenantUse& use, const SharedCapacity& capacity, int64_t more_places,
                      int64_t more_blocks) {
  const auto fits = [&](int64_t held, int64_t all) {
    return held * capacity.total_weight <= all * use.weight;
  };
  return fits(use.num_running + more_places, capacity.num_places) &&
         fits(use.num_blocks + more_blocks, capacity.num_blocks);
}

inline bool IsOverShare(const TenantUse& use, const SharedCapacity& capacity) {
  return !FitsShare(use, capacity, 0, 0);
}

}  // namespace gatehouse
