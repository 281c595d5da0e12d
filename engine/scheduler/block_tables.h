// The block tables of the sequences: which KV blocks each holds, taken from one pool and shared
// between sequences that begin alike (PrefixIndex).
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
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "engine/cache/block_pool.h"
#include "engine/cache/prefix_index.h"
#include "engine/scheduler/sequence.h"

namespace gatehouse {

class BlockTables {
 public:
  BlockTables(int32_t num_blocks, int32_t block_tokens, uint64_t hash_seed);

  // Takes over what the cache has of the sequence's tokens, from where it stands on; not its last
  // token, whose row yields the next, and not the rows whose results it wants to see. No-op once
  // the sequence has computed a row since it started.
  void Reuse(Sequence& sequence);
  // Takes blocks until there is room for `num_positions` more, or none is left; returns for how
  // many there is room.
  int32_t Grow(Sequence& sequence, int32_t num_positions);
  // Gives back what rows were foreseen for and not planned: `num_positions` are left to come.
  void Shrink(Sequence& sequence, int32_t num_positions);
  // Full blocks that have been computed can be found from now on.
  void Index(Sequence& sequence);
  // Gives all back; the sequence is at position 0 again.
  void Free(Sequence& sequence);

  // Blocks of no sequence, for `num_positions`; there is room.
  std::vector<int32_t> Lend(int64_t num_positions);
  void TakeBack(std::span<const int32_t> block_ids);

  int32_t BlocksFor(int64_t num_positions) const {
    return static_cast<int32_t>((num_positions + block_tokens_ - 1) / block_tokens_);
  }
  int32_t block_tokens() const { return block_tokens_; }
  const BlockPool& pool() const { return pool_; }

  // O(blocks), and for one sequence, between two steps.
  absl::Status CheckInvariants() const;
  absl::Status CheckSequence(const Sequence& sequence) const;

 private:
  bool TakeGroup(Sequence& sequence);
  BlockContent ContentOf(const Sequence& sequence, int32_t block_idx, ContentId parent) const;

  const int32_t block_tokens_;
  BlockPool pool_;
  PrefixIndex index_;
};

}  // namespace gatehouse
