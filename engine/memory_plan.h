// What a server will take of the machine's memory, in closed form, before anything is allocated:
// found out at start, not under load.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace gatehouse {

struct MemoryPlan {
  int64_t expert_weight_bytes = 0;
  int64_t dense_weight_bytes = 0;
  int64_t workspace_bytes = 0;  // activations, logits, rope table
  int num_ranks = 1;            // of this process; they share the weights
  int64_t kv_block_bytes = 0;   // one block of all layers
  int64_t num_kv_blocks = 0;    // of each rank
  int64_t kv_cache_bytes = 0;
  int64_t available_bytes = 0;  // when the plan was made

  int64_t total_bytes() const {
    return expert_weight_bytes + dense_weight_bytes + workspace_bytes + kv_cache_bytes;
  }
  // Several lines for a person, one quantity each.
  std::string ToString() const;
};

struct MemoryDemand {
  int64_t expert_weight_bytes = 0;
  int64_t dense_weight_bytes = 0;
  int64_t workspace_bytes = 0;  // of all ranks
  int num_ranks = 1;
  int64_t kv_block_bytes = 0;
  int32_t block_tokens = 0;
  int32_t max_sequences = 0;
  int32_t max_context = 0;
  int64_t kv_cache_bytes = 0;  // of all ranks, as configured; 0: choose
  int64_t available_bytes = 0;
};

// The cache gets what was configured, or else enough for max_sequences of max_context tokens, at
// most half of what the weights leave. RESOURCE_EXHAUSTED with the numbers when weights and cache
// do not fit or the cache cannot hold one sequence of max_context tokens.
absl::StatusOr<MemoryPlan> PlanMemory(const MemoryDemand& demand);

// What this process may still take: MemAvailable, or what its control group (version 2, else 1)
// leaves if that is less; page cache counts as free in both. `root` holds proc and sys.
int64_t AvailableMemoryBytes(const std::string& root = "");

}  // namespace gatehouse
