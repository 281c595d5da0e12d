// Hands out KV blocks by id. A block is free, or owned by one or more holders (reference count).
//
// Owner: the scheduler. Not thread-safe: only the engine loop calls it. Holds no device memory; the
// worker's KV cache is the memory behind the ids. Never fails: callers ask num_free() first; taking
// from an empty pool, or giving back what is free, is a fault of ours and aborts.
//
// Free blocks stand in a line. Take takes the first; Release puts a block there, where its memory
// may still be in the processor's cache; Retire puts it last, because its content may be wanted
// again. So contents are lost in the order in which they were last used (LRU).
//
//   BlockPool pool(/*num_blocks=*/128);
//   const int32_t block_id = pool.Take();   // one holder
//   pool.Share(block_id);                   // two
//   pool.Release(block_id);                 // one
//   pool.Retire(block_id);                  // free, and the last to be taken
//   pool.Share(block_id);                   // one holder again: nobody has taken it meanwhile
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
  int32_t num_free() const { return num_free_; }
  int32_t num_used() const { return num_blocks() - num_free(); }
  int32_t ref_count(int32_t block_id) const;  // 0: free

  int32_t Take();                // an id in [0, num_blocks), with one holder
  void Share(int32_t block_id);  // one more holder; takes a free block out of the line
  // One holder less, and when it was the last, free: the first or the last to be taken.
  void Release(int32_t block_id);
  void Retire(int32_t block_id);

  // Every block is either free, once, or held: INTERNAL names the first that is not. O(num_blocks).
  absl::Status CheckInvariants() const;

 private:
  struct Links {
    int32_t previous = 0;
    int32_t next = 0;
  };

  bool DropHolder(int32_t block_id);  // true when it was the last
  void InsertAfter(int32_t previous, int32_t block_id);
  void Unlink(int32_t block_id);

  std::vector<int32_t> ref_counts_;  // [num_blocks]
  // [num_blocks + 1]: a ring of the free blocks; the extra one is its head and no block.
  std::vector<Links> links_;
  int32_t num_free_ = 0;
};

}  // namespace gatehouse
