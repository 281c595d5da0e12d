// The block tables of the sequences: which KV blocks each holds, taken from its rank's pool and
// shared between sequences of that rank that begin alike (PrefixIndex).
//
//   tokens   [ 0 .. 15 ][ 16 .. 31 ][ 32 .. 37
//   blocks   [ reused   ][ reused   ][ own: computed by this sequence's rows
//
// Between two steps every full block whose positions are computed and sharable is in the index, and
// the sequence holds the very block that the index names: of two sequences that computed the same
// tokens side by side one gives its block back. So whoever holds a block holds all before it,
// contents are evicted from the end of a prefix, and what the index names always has its parent
// there.
//
// Owner: the scheduler; its thread. Never fails; a wrong call is a fault of ours and aborts.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "engine/cache/block_pool.h"
#include "engine/cache/prefix_index.h"
#include "engine/scheduler/sequence.h"

namespace gatehouse {

struct BlockTablesSetup {
  int num_ranks = 1;
  int32_t num_blocks = 0;  // of each rank
  int32_t block_tokens = 16;
  uint64_t hash_seed = 0;
};

class BlockTables {
 public:
  explicit BlockTables(const BlockTablesSetup& setup);

  // Takes over what the cache has of the sequence's tokens, from where it stands on; not its last
  // token, whose row yields the next, and not the rows whose results it wants to see. No-op once
  // the sequence has computed a row since it started.
  void Reuse(Sequence& sequence);
  // Leading positions that Reuse would find on a rank, for a sequence that holds nothing.
  int32_t CachedPositions(const Sequence& sequence, int rank) const;
  // Takes blocks until there is room for `num_positions` more, or none is left; returns for how
  // many there is room.
  int32_t Grow(Sequence& sequence, int32_t num_positions);
  // Gives back what rows were foreseen for and not planned: `num_positions` are left to come.
  void Shrink(Sequence& sequence, int32_t num_positions);
  // Full blocks that have been computed can be found from now on.
  void Index(Sequence& sequence);
  // What is cached on a rank is gone: its memory is. No sequence holds a block of it.
  void Forget(int rank);
  // Gives all back; the sequence is at position 0 again.
  void Free(Sequence& sequence);

  // Blocks of no sequence, of rank 0, for `num_positions`; there is room.
  std::vector<int32_t> Lend(int64_t num_positions);
  void TakeBack(std::span<const int32_t> block_ids);

  int32_t BlocksFor(int64_t num_positions) const {
    return static_cast<int32_t>((num_positions + block_tokens_ - 1) / block_tokens_);
  }
  int32_t block_tokens() const { return block_tokens_; }
  int num_ranks() const { return static_cast<int>(ranks_.size()); }
  const BlockPool& pool(int rank) const { return ranks_[rank]->pool; }

  // O(blocks), and for one sequence, between two steps.
  absl::Status CheckInvariants() const;
  absl::Status CheckSequence(const Sequence& sequence) const;

 private:
  struct Rank {
    explicit Rank(const BlockTablesSetup& setup);

    BlockPool pool;
    PrefixIndex index;
  };

  // How far Reuse may go.
  int32_t ReusableBlocks(const Sequence& sequence) const;
  // Content of the group's last block, and the blocks behind `block_ids`; none: not all are there.
  std::optional<ContentId> FindGroup(const Sequence& sequence, const Rank& rank,
                                     int32_t first_block, ContentId parent,
                                     std::vector<int32_t>& block_ids) const;
  bool TakeGroup(Sequence& sequence);
  BlockContent ContentOf(const Sequence& sequence, int32_t block_idx, ContentId parent) const;

  const int32_t block_tokens_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

}  // namespace gatehouse
