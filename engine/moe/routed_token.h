// What routing knows of a row besides its scores. Made by the scheduler, read by the router (rules
// R3, R8 and R18 of docs/routing.md). A value.
#pragma once

#include <cstdint>

#include "engine/moe/routing_policy.h"

namespace gatehouse {

struct RoutedToken {
  TokenMode mode = TokenMode::kExact;
  bool padding = false;     // neither read nor counted
  int32_t policy_idx = -1;  // into the step's policies; -1: exact, under no policy
  int64_t request = 0;      // a row that fails takes its request with it
  int64_t position = 0;     // in the request, >= 0
  int32_t domain = 0;       // of a shared token; never two trust groups nor two policies in one
  int32_t home_device = 0;  // that owns the token
  int32_t rank = 0;         // that owns the token, where ranks count for themselves
  uint64_t tie_key = 0;     // kappa: a keyed hash of request, sample and position
};

}  // namespace gatehouse
