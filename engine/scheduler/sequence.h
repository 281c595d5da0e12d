// The mutable life of one output of a request inside the engine: its tokens and the KV blocks that
// hold them. Owned by the scheduler; the engine loop's thread only.
//
//   positions  0 ........ num_computed ........ tokens.size()
//              in cache   | rows of the next steps, the last of which yields a new token
//
// A preempted sequence goes back to num_computed 0 and keeps its tokens: what was generated is
// recomputed as if it were prompt, or found in the cache again, and num_seen says what was reported
// before.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "engine/cache/prefix_index.h"
#include "engine/request/request.h"
#include "engine/scheduler/step_plan.h"
#include "kernels/base/clock.h"

namespace gatehouse {

struct TenantState;

struct Sequence {
  SequenceId id = 0;
  int32_t output_index = 0;
  std::shared_ptr<const Request> request;
  TenantState* tenant = nullptr;
  // Arrival, later the lower the priority. Who has the smaller turn runs first and is preempted
  // last.
  TimePoint turn{};
  std::vector<int32_t> tokens;     // prompt, then generated; never reallocated
  std::vector<int32_t> block_ids;  // [ceil(num_computed / block_tokens)] between two steps
  int32_t num_prompt_tokens = 0;
  int32_t num_computed = 0;  // leading positions whose keys and values the cache holds
  int32_t num_seen = 0;      // leading positions that need not be reported any more
  int32_t num_preemptions = 0;
  int32_t rank = 0;  // whose cache holds its blocks; chosen whenever it starts
  bool running = false;
  bool in_plan = false;

  // Bounded routing (row_routing.h).
  uint64_t tie_key = 0;       // of this output; each position has its own
  int32_t home_device = 0;    // of the policy's placement
  int32_t chunk_quantum = 1;  // chunks of its prompt end at multiples of this, or at its end

  // For BlockTables.
  std::string cache_scope;       // tenant and salt: who may share its blocks
  bool wants_every_row = false;  // its results tell of every row: none is taken from the cache
  // Blocks are shared in groups of so many, and none that holds a position from one of these ends
  // on: the request's own for ever, or until it is computed again.
  int32_t group_blocks = 1;
  int32_t sharable_end = std::numeric_limits<int32_t>::max();
  int32_t clean_end = std::numeric_limits<int32_t>::max();
  int32_t num_reused = 0;  // leading positions taken from the cache since it started
  int32_t num_indexed_blocks = 0;
  ContentId last_content = kNoContent;    // of the last of them
  int32_t num_cached_prompt_tokens = -1;  // found there when it ran first; -1: it has not

  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_generated() const { return num_tokens() - num_prompt_tokens; }
  int32_t num_uncomputed() const { return num_tokens() - num_computed; }
  SequenceId ticket() const { return id - output_index; }
  // What it adds to the queue. A further output finds its prompt in the cache.
  int32_t num_queue_tokens() const {
    return output_index == 0 ? num_tokens() : num_generated() + 1;
  }
  bool decoding() const { return num_generated() > 0 && num_uncomputed() == 1; }
};

// A total order: no two sequences share an id.
struct RunsBefore {
  bool operator()(const Sequence* a, const Sequence* b) const {
    return a->turn != b->turn ? a->turn < b->turn : a->id < b->id;
  }
};

}  // namespace gatehouse
