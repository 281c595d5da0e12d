#include "engine/cache/block_pool.h"

#include <cstddef>

#include "absl/strings/str_format.h"
#include "kernels/base/check.h"

namespace gatehouse {

BlockPool::BlockPool(int32_t num_blocks) {
  GATEHOUSE_CHECK(num_blocks >= 1) << "num_blocks " << num_blocks;
  ref_counts_.assign(static_cast<size_t>(num_blocks), 0);
  links_.resize(static_cast<size_t>(num_blocks) + 1);
  links_[num_blocks] = {.previous = num_blocks, .next = num_blocks};
  for (int32_t block_id = 0; block_id < num_blocks; ++block_id) {
    InsertAfter(links_[num_blocks].previous, block_id);
  }
}

int32_t BlockPool::ref_count(int32_t block_id) const {
  GATEHOUSE_CHECK(block_id >= 0 && block_id < num_blocks()) << "block " << block_id;
  return ref_counts_[block_id];
}

int32_t BlockPool::Take() {
  GATEHOUSE_CHECK(num_free_ > 0) << "all " << num_blocks() << " blocks are held";
  const int32_t block_id = links_[num_blocks()].next;
  Share(block_id);
  return block_id;
}

void BlockPool::Share(int32_t block_id) {
  if (ref_count(block_id) == 0) Unlink(block_id);
  ++ref_counts_[block_id];
}

void BlockPool::Release(int32_t block_id) {
  if (DropHolder(block_id)) InsertAfter(num_blocks(), block_id);
}

void BlockPool::Retire(int32_t block_id) {
  if (DropHolder(block_id)) InsertAfter(links_[num_blocks()].previous, block_id);
}

absl::Status BlockPool::CheckInvariants() const {
  std::vector<int32_t> times_free(ref_counts_.size(), 0);
  int32_t num_seen = 0;
  for (int32_t id = links_[num_blocks()].next; id != num_blocks(); id = links_[id].next) {
    if (id < 0 || id > num_blocks() || ++num_seen > num_free_) {
      return absl::InternalError(
          absl::StrFormat("free line: block %d as number %d of %d", id, num_seen, num_free_));
    }
    ++times_free[id];
  }
  for (int32_t block_id = 0; block_id < num_blocks(); ++block_id) {
    const int32_t expected = ref_counts_[block_id] == 0 ? 1 : 0;
    if (ref_counts_[block_id] < 0 || times_free[block_id] != expected) {
      return absl::InternalError(absl::StrFormat("block %d: %d holders, %d times in the free line",
                                                 block_id, ref_counts_[block_id],
                                                 times_free[block_id]));
    }
  }
  return absl::OkStatus();
}

bool BlockPool::DropHolder(int32_t block_id) {
  GATEHOUSE_CHECK(ref_count(block_id) > 0) << "block " << block_id << " is free";
  return --ref_counts_[block_id] == 0;
}

void BlockPool::InsertAfter(int32_t previous, int32_t block_id) {
  const int32_t next = links_[previous].next;
  links_[block_id] = {.previous = previous, .next = next};
  links_[previous].next = block_id;
  links_[next].previous = block_id;
  ++num_free_;
}

void BlockPool::Unlink(int32_t block_id) {
  const Links links = links_[block_id];
  links_[links.previous].next = links.next;
  links_[links.next].previous = links.previous;
  --num_free_;
}

}  // namespace gatehouse
