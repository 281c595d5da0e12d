#include "engine/scheduler/block_tables.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_format.h"
#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

int32_t SharedEnd(const Sequence& sequence) {
  return std::min(sequence.sharable_end, sequence.clean_end);
}

}  // namespace

BlockTables::Rank::Rank(const BlockTablesSetup& setup)
    : pool(setup.num_blocks),
      index({.num_blocks = setup.num_blocks,
             .block_tokens = setup.block_tokens,
             .hash_seed = setup.hash_seed}) {}

BlockTables::BlockTables(const BlockTablesSetup& setup) : block_tokens_(setup.block_tokens) {
  for (int r = 0; r < setup.num_ranks; ++r) ranks_.push_back(std::make_unique<Rank>(setup));
}

int32_t BlockTables::ReusableBlocks(const Sequence& sequence) const {
  const int32_t last = std::min(sequence.num_tokens() - 1, sequence.sharable_end);
  return (sequence.wants_every_row ? std::min(sequence.num_seen, last) : last) / block_tokens_;
}

void BlockTables::Reuse(Sequence& sequence) {
  if (sequence.num_computed != sequence.num_reused) return;
  const int32_t num_blocks = ReusableBlocks(sequence);
  while (sequence.num_indexed_blocks + sequence.group_blocks <= num_blocks && TakeGroup(sequence)) {
  }
}

int32_t BlockTables::CachedPositions(const Sequence& sequence, int rank) const {
  const int32_t num_blocks = ReusableBlocks(sequence);
  int32_t num_found = 0;
  ContentId content = kNoContent;
  std::vector<int32_t> block_ids;
  while (num_found + sequence.group_blocks <= num_blocks) {
    const auto found = FindGroup(sequence, *ranks_[rank], num_found, content, block_ids);
    if (!found.has_value()) break;
    content = *found;
    num_found += sequence.group_blocks;
  }
  return num_found * block_tokens_;
}

// All blocks of a group or none: a block of bounds that is computed in part would be another.
std::optional<ContentId> BlockTables::FindGroup(const Sequence& sequence, const Rank& rank,
                                                int32_t first_block, ContentId parent,
                                                std::vector<int32_t>& block_ids) const {
  const auto num_held = static_cast<int64_t>(block_ids.size());
  for (int32_t i = 0; i < sequence.group_blocks; ++i) {
    const auto found = rank.index.Find(ContentOf(sequence, first_block + i, parent));
    if (!found.has_value()) {
      block_ids.erase(block_ids.begin() + num_held, block_ids.end());
      return std::nullopt;
    }
    block_ids.push_back(found->block_id);
    parent = found->content;
  }
  return parent;
}

bool BlockTables::TakeGroup(Sequence& sequence) {
  Rank& rank = *ranks_[sequence.rank];
  const size_t num_held = sequence.block_ids.size();
  const auto content = FindGroup(sequence, rank, sequence.num_indexed_blocks, sequence.last_content,
                                 sequence.block_ids);
  if (!content.has_value()) return false;
  for (size_t i = num_held; i < sequence.block_ids.size(); ++i) {
    rank.pool.Share(sequence.block_ids[i]);
  }
  sequence.last_content = *content;
  sequence.num_indexed_blocks += sequence.group_blocks;
  sequence.num_reused += sequence.group_blocks * block_tokens_;
  sequence.num_computed = sequence.num_reused;
  return true;
}

int32_t BlockTables::Grow(Sequence& sequence, int32_t num_positions) {
  Rank& rank = *ranks_[sequence.rank];
  const auto num_held = static_cast<int32_t>(sequence.block_ids.size());
  const int32_t num_missing = BlocksFor(sequence.num_computed + num_positions) - num_held;
  const int32_t num_taken = std::min(num_missing, rank.pool.num_free());
  for (int32_t i = 0; i < num_taken; ++i) {
    const int32_t block_id = rank.pool.Take();
    rank.index.Forget(block_id);
    sequence.block_ids.push_back(block_id);
  }
  const int32_t room = (num_held + num_taken) * block_tokens_ - sequence.num_computed;
  return std::min(room, num_positions);
}

void BlockTables::Shrink(Sequence& sequence, int32_t num_positions) {
  BlockPool& pool = ranks_[sequence.rank]->pool;
  const int32_t num_kept = BlocksFor(sequence.num_computed + num_positions);
  while (static_cast<int32_t>(sequence.block_ids.size()) > num_kept) {
    pool.Release(sequence.block_ids.back());
    sequence.block_ids.pop_back();
  }
}

void BlockTables::Index(Sequence& sequence) {
  Rank& rank = *ranks_[sequence.rank];
  const int32_t end = std::min(sequence.num_computed, SharedEnd(sequence));
  while ((sequence.num_indexed_blocks + 1) * block_tokens_ <= end) {
    int32_t& block_id = sequence.block_ids[sequence.num_indexed_blocks];
    const BlockContent content =
        ContentOf(sequence, sequence.num_indexed_blocks, sequence.last_content);
    if (const auto found = rank.index.Find(content)) {
      rank.pool.Share(found->block_id);
      rank.pool.Release(block_id);
      block_id = found->block_id;
      sequence.last_content = found->content;
    } else {
      sequence.last_content = rank.index.Add(content, block_id);
    }
    ++sequence.num_indexed_blocks;
  }
}

void BlockTables::Forget(int rank) {
  Rank& forgotten = *ranks_[rank];
  GATEHOUSE_CHECK(forgotten.pool.num_used() == 0)
      << forgotten.pool.num_used() << " blocks are held";
  for (int32_t id = 0; id < forgotten.pool.num_blocks(); ++id) forgotten.index.Forget(id);
}

// From the end, so that the beginning, which more prompts share, is the last to be evicted.
void BlockTables::Free(Sequence& sequence) {
  Rank& rank = *ranks_[sequence.rank];
  for (auto it = sequence.block_ids.rbegin(); it != sequence.block_ids.rend(); ++it) {
    if (rank.index.Holds(*it)) {
      rank.pool.Retire(*it);
    } else {
      rank.pool.Release(*it);
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
  Rank& rank = *ranks_[0];
  std::vector<int32_t> block_ids(BlocksFor(num_positions));
  for (int32_t& block_id : block_ids) {
    block_id = rank.pool.Take();
    rank.index.Forget(block_id);
  }
  return block_ids;
}

void BlockTables::TakeBack(std::span<const int32_t> block_ids) {
  for (const int32_t block_id : block_ids) ranks_[0]->pool.Release(block_id);
}

BlockContent BlockTables::ContentOf(const Sequence& sequence, int32_t block_idx,
                                    ContentId parent) const {
  const std::span<const int32_t> tokens = sequence.tokens;
  return {.parent = parent,
          .scope = block_idx == 0 ? std::string_view(sequence.cache_scope) : std::string_view(),
          .tokens = tokens.subspan(static_cast<size_t>(block_idx) * block_tokens_, block_tokens_)};
}

absl::Status BlockTables::CheckInvariants() const {
  for (const auto& rank : ranks_) {
    GATEHOUSE_RETURN_IF_ERROR(rank->pool.CheckInvariants());
    GATEHOUSE_RETURN_IF_ERROR(rank->index.CheckInvariants());
  }
  return absl::OkStatus();
}

absl::Status BlockTables::CheckSequence(const Sequence& sequence) const {
  const Rank& rank = *ranks_[sequence.rank];
  const auto num_blocks = static_cast<int32_t>(sequence.block_ids.size());
  const int32_t shared_end = std::min(sequence.num_computed, SharedEnd(sequence));
  if (num_blocks != BlocksFor(sequence.num_computed) ||
      sequence.num_indexed_blocks != shared_end / block_tokens_) {
    return absl::InternalError(
        absl::StrFormat("sequence %d: %d computed, %d blocks, %d in the index", sequence.id,
                        sequence.num_computed, num_blocks, sequence.num_indexed_blocks));
  }
  for (int32_t i = 0; i < num_blocks; ++i) {
    const int32_t num_holders = rank.pool.ref_count(sequence.block_ids[i]);
    const bool is_indexed = rank.index.Holds(sequence.block_ids[i]);
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
