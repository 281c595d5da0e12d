#include "engine/scheduler/block_tables.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

int32_t SharedEnd(const Sequence& sequence) {
  return std::min(sequence.sharable_end, sequence.clean_end);
}

}  // namespace

BlockTables::BlockTables(int32_t num_blocks, int32_t block_tokens, uint64_t hash_seed)
    : block_tokens_(block_tokens),
      pool_(num_blocks),
      index_({.num_blocks = num_blocks, .block_tokens = block_tokens, .hash_seed = hash_seed}) {}

void BlockTables::Reuse(Sequence& sequence) {
  if (sequence.num_computed != sequence.num_reused) return;
  const int32_t last = std::min(sequence.num_tokens() - 1, sequence.sharable_end);
  const int32_t end = sequence.wants_every_row ? std::min(sequence.num_seen, last) : last;
  const int32_t num_blocks = end / block_tokens_;
  while (sequence.num_indexed_blocks + sequence.group_blocks <= num_blocks && TakeGroup(sequence)) {
  }
}

// All blocks of a group or none: a block of bounds that is computed in part would be another.
bool BlockTables::TakeGroup(Sequence& sequence) {
  const auto num_held = static_cast<int64_t>(sequence.block_ids.size());
  ContentId content = sequence.last_content;
  for (int32_t i = 0; i < sequence.group_blocks; ++i) {
    const auto found = index_.Find(ContentOf(sequence, sequence.num_indexed_blocks + i, content));
    if (!found.has_value()) {
      sequence.block_ids.erase(sequence.block_ids.begin() + num_held, sequence.block_ids.end());
      return false;
    }
    sequence.block_ids.push_back(found->block_id);
    content = found->content;
  }
  for (int32_t i = 0; i < sequence.group_blocks; ++i) pool_.Share(sequence.block_ids[num_held + i]);
  sequence.last_content = content;
  sequence.num_indexed_blocks += sequence.group_blocks;
  sequence.num_reused += sequence.group_blocks * block_tokens_;
  sequence.num_computed = sequence.num_reused;
  return true;
}

int32_t BlockTables::Grow(Sequence& sequence, int32_t num_positions) {
  const auto num_held = static_cast<int32_t>(sequence.block_ids.size());
  const int32_t num_missing = BlocksFor(sequence.num_computed + num_positions) - num_held;
  const int32_t num_taken = std::min(num_missing, pool_.num_free());
  for (int32_t i = 0; i < num_taken; ++i) {
    const int32_t block_id = pool_.Take();
    index_.Forget(block_id);
    sequence.block_ids.push_back(block_id);
  }
  const int32_t room = (num_held + num_taken) * block_tokens_ - sequence.num_computed;
  return std::min(room, num_positions);
}

void BlockTables::Shrink(Sequence& sequence, int32_t num_positions) {
  const int32_t num_kept = BlocksFor(sequence.num_computed + num_positions);
  while (static_cast<int32_t>(sequence.block_ids.size()) > num_kept) {
    pool_.Release(sequence.block_ids.back());
    sequence.block_ids.pop_back();
  }
}

void BlockTables::Index(Sequence& sequence) {
  const int32_t end = std::min(sequence.num_computed, SharedEnd(sequence));
  while ((sequence.num_indexed_blocks + 1) * block_tokens_ <= end) {
    int32_t& block_id = sequence.block_ids[sequence.num_indexed_blocks];
    const BlockContent content =
        ContentOf(sequence, sequence.num_indexed_blocks, sequence.last_content);
    if (const auto found = index_.Find(content)) {
      pool_.Share(found->block_id);
      pool_.Release(block_id);
      block_id = found->block_id;
      sequence.last_content = found->content;
    } else {
      sequence.last_content = index_.Add(content, block_id);
    }
    ++sequence.num_indexed_blocks;
  }
}

// From the end, so that the beginning, which more prompts share, is the last to be evicted.
void BlockTables::Free(Sequence& sequence) {
  for (auto it = sequence.block_ids.rbegin(); it != sequence.block_ids.rend(); ++it) {
    if (index_.Holds(*it)) {
      pool_.Retire(*it);
    } else {
      pool_.Release(*it);
    }
  }
  sequence.block_ids.clear();
  sequence.num_computed = 0;
  sequence.clean_end = std::numeric_limits<int32_t>::max();
  sequence.num_reused = 0;
  sequence.num_indexed_blocks = 0;
  sequence.last_content = kNoContent;
}

std::vector<int32_t> BlockTables::Lend(int64_t num_positions) {
  std::vector<int32_t> block_ids(BlocksFor(num_positions));
  for (int32_t& block_id : block_ids) {
    block_id = pool_.Take();
    index_.Forget(block_id);
  }
  return block_ids;
}

void BlockTables::TakeBack(std::span<const int32_t> block_ids) {
  for (const int32_t block_id : block_ids) pool_.Release(block_id);
}

BlockContent BlockTables::ContentOf(const Sequence& sequence, int32_t block_idx,
                                    ContentId parent) const {
  const std::span<const int32_t> tokens = sequence.tokens;
  return {.parent = parent,
          .scope = block_idx == 0 ? std::string_view(sequence.cache_scope) : std::string_view(),
          .tokens = tokens.subspan(static_cast<size_t>(block_idx) * block_tokens_, block_tokens_)};
}

absl::Status BlockTables::CheckInvariants() const {
  GATEHOUSE_RETURN_IF_ERROR(pool_.CheckInvariants());
  return index_.CheckInvariants();
}

absl::Status BlockTables::CheckSequence(const Sequence& sequence) const {
  const auto num_blocks = static_cast<int32_t>(sequence.block_ids.size());
  const int32_t shared_end = std::min(sequence.num_computed, SharedEnd(sequence));
  if (num_blocks != BlocksFor(sequence.num_computed) ||
      sequence.num_indexed_blocks != shared_end / block_tokens_) {
    return absl::InternalError(
        absl::StrFormat("sequence %d: %d computed, %d blocks, %d in the index", sequence.id,
                        sequence.num_computed, num_blocks, sequence.num_indexed_blocks));
  }
  for (int32_t i = 0; i < num_blocks; ++i) {
    const int32_t num_holders = pool_.ref_count(sequence.block_ids[i]);
    const bool is_indexed = index_.Holds(sequence.block_ids[i]);
    const bool may_be_shared = i < sequence.num_indexed_blocks;
    if (is_indexed != may_be_shared || num_holders < 1 || (num_holders > 1 && !may_be_shared)) {
      return absl::InternalError(
          absl::StrFormat("sequence %d: block %d has %d holders, in the index: %d", sequence.id,
                          sequence.block_ids[i], num_holders, is_indexed));
    }
  }
  return absl::OkStatus();
}

}  // namespace gatehouse
