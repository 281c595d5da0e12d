#include "engine/cache/block_pool.h"

#include <cstddef>

#include "absl/strings/str_format.h"
#include "kernels/base/check.h"

namespace gatehouse {

BlockPool::BlockPool(int32_t num_blocks) {
  GATEHOUSE_CHECK(num_blocks >= 1) << "num_blocks " << num_blocks;
  ref_counts_.assign(static_cast<size_t>(num_blocks), 0);
  free_ids_.reserve(static_cast<size_t>(num_blocks));
  for (int32_t block_id = num_blocks - 1; block_id >= 0; --block_id) free_ids_.push_back(block_id);
}

int32_t BlockPool::ref_count(int32_t block_id) const {
  GATEHOUSE_CHECK(block_id >= 0 && block_id < num_blocks()) << "block " << block_id;
  return ref_counts_[block_id];
}

int32_t BlockPool::Take() {
  GATEHOUSE_CHECK(!free_ids_.empty()) << "all " << num_blocks() << " blocks are held";
  const int32_t block_id = free_ids_.back();
  free_ids_.pop_back();
  ref_counts_[block_id] = 1;
  return block_id;
}

void BlockPool::Share(int32_t block_id) {
  CheckHeld(block_id);
  ++ref_counts_[block_id];
}

void BlockPool::Release(int32_t block_id) {
  CheckHeld(block_id);
  if (--ref_counts_[block_id] == 0) free_ids_.push_back(block_id);
}

absl::Status BlockPool::CheckInvariants() const {
  std::vector<int32_t> times_free(ref_counts_.size(), 0);
  for (const int32_t block_id : free_ids_) {
    if (block_id < 0 || block_id >= num_blocks()) {
      return absl::InternalError(
          absl::StrFormat("free list: block %d, limit %d", block_id, num_blocks() - 1));
    }
    ++times_free[block_id];
  }
  for (int32_t block_id = 0; block_id < num_blocks(); ++block_id) {
    const int32_t expected = ref_counts_[block_id] == 0 ? 1 : 0;
    if (ref_counts_[block_id] < 0 || times_free[block_id] != expected) {
      return absl::InternalError(absl::StrFormat("block %d: %d holders, %d times in the free list",
                                                 block_id, ref_counts_[block_id],
                                                 times_free[block_id]));
    }
  }
  return absl::OkStatus();
}

void BlockPool::CheckHeld(int32_t block_id) const {
  GATEHOUSE_CHECK(ref_count(block_id) > 0) << "block " << block_id << " is free";
}

}  // namespace gatehouse
