// How a sequence that is admitted under a policy is cut into chunks, shared and routed, so that
// what a mode promises holds whatever else the server does. Pure functions; the scheduler's thread.
//
//   positions  0 ............ num_prompt_tokens ............ tokens.size()
//              prefill: bounded by the policy | decode: exact, unless the policy bounds it
//
// The phase is the position's own, not the step's: what is computed again after a preemption is
// routed as it was.
#pragma once

#include <cstdint>
#include <string>

#include "engine/moe/pinned_policy.h"
#include "engine/moe/routed_token.h"
#include "engine/request/request.h"
#include "engine/scheduler/sequence.h"
#include "kernels/base/keyed_hash.h"

namespace gatehouse {

// Shared tokens compete in chunks of so many positions: enough for some eight a domain and expert.
inline constexpr int32_t kSharedChunkTokens = 128;

// What of a server decides how bounded sequences are cut.
struct RoutingGrid {
  int32_t block_tokens = 16;      // of the KV cache
  int32_t max_chunk_tokens = 16;  // that every step has room for
  HashKey secret{};
};

// Fills the sequence's fields of bounded routing, and what of it the cache may share:
//   exact       every block                           scope: tenant and salt
//   shared      blocks that no bound has touched      the same: they hold what exact ones hold
//   isolated    blocks of the prompt; in block modes whole blocks of bounds alone
//                                                     scope: tenant, salt and policy version
void SetRouting(const RoutingGrid& grid, Sequence& sequence);

// The furthest end in (num_computed, limit] where a chunk may end; num_computed: there is none.
int32_t ChunkEnd(const Sequence& sequence, int32_t limit);
// The nearest one.
int32_t FirstChunkEnd(const Sequence& sequence);

// How the policy has a row of the sequence routed. `group` tells apart who may compete with whom:
// one a tenant and policy.
struct RowPolicy {
  int32_t policy_idx = -1;  // in the step; -1: none
  int32_t group = 0;
};
RoutedToken TokenOf(const Sequence& sequence, int32_t position, const RowPolicy& row,
                    const HashKey& secret);

}  // namespace gatehouse
