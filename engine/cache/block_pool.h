// Hands out KV blocks by id. A block is free, or owned by one or more holders (reference count).
//
// Owner: the scheduler. Not thread-safe: only the engine loop calls it. Holds no device memory; the
// worker's KV cache is the memory behind the ids. Never fails: callers ask num_free() first; taking
// from an empty pool, or giving back what is free, is a fault of ours and aborts.
//
//   BlockPool pool(/*num_blocks=*/128);
//   const int32_t block_id = pool.Take();   // one holder
//   pool.Share(block_id);                   // two
//   pool.Release(block_id);                 // one
//   pool.Release(block_id);                 // free again
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace gatehouse {

class BlockPool {
 public:
  explicit BlockPool(int32_t num_blocks);  // at least 1
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  int32_t num_blocks() const { return static_cast<int32_t>(ref_counts_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(free_ids_.size()); }
  int32_t num_used() const { return num_blocks() - num_free(); }
  int32_t ref_count(int32_t block_id) const;  // 0: free

  int32_t Take();                // an id in [0, num_blocks), with one holder
  void Share(int32_t block_id);  // one more holder of a block that has one
  void Release(int32_t block_id);

  // Every block is either free, once, or held: INTERNAL names the first that is not. O(num_blocks).
  absl::Status CheckInvariants() const;

 private:
  void CheckHeld(int32_t block_id) const;

  std::vector<int32_t> ref_counts_;  // [num_blocks]
  // A stack: the block freed last is taken first, while its memory may still be in the cache.
  std::vector<int32_t> free_ids_;  // [num_free]
};

}  // namespace gatehouse
