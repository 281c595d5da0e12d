// Which block holds the keys and values of which tokens: so that a prompt that begins as another
// did need not be computed again. Full blocks only, hence nothing is ever copied.
//
// A block is found by the hash of its parent's content and its own tokens; then parent, tokens and,
// for a first block, scope (tenant and salt) are compared. So two contents with one hash are told
// apart: a collision costs a comparison and never gives one request the keys of another.
//
//   content 7 = (scope "a", tokens 0..15)   <--parent-- content 9 = (7, tokens 16..31)
//
// Owner: the scheduler, beside the BlockPool of the same ids; the engine loop's thread. Holds no
// reference: who takes a block for something else calls Forget first. Never fails; a wrong call is
// a fault of ours and aborts.
//
//   PrefixIndex index({.num_blocks = 128, .block_tokens = 16});
//   auto found = index.Find({.scope = "a", .tokens = tokens});          // nothing
//   ContentId first = index.Add({.scope = "a", .tokens = tokens}, block_id);
//   found = index.Find({.scope = "a", .tokens = tokens});               // {block_id, first}
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"

namespace gatehouse {

// The tokens of a block and all before it, under one scope. Never given twice, so what has been
// evicted and computed again is another content.
using ContentId = uint64_t;
inline constexpr ContentId kNoContent = 0;

struct BlockContent {
  ContentId parent = kNoContent;    // of the block before; none: the first block
  std::string_view scope;           // whose the first block is; of later ones their parent's
  std::span<const int32_t> tokens;  // [block_tokens]
};

using BlockHash = uint64_t (*)(uint64_t seed, const BlockContent& content);
uint64_t HashBlock(uint64_t seed, const BlockContent& content);

struct PrefixIndexSetup {
  int32_t num_blocks = 0;
  int32_t block_tokens = 0;
  uint64_t hash_seed = 0;  // random in a server: nobody can then prepare prompts that collide
  BlockHash hash = HashBlock;
};

class PrefixIndex {
 public:
  struct Found {
    int32_t block_id = 0;
    ContentId content = kNoContent;
  };

  explicit PrefixIndex(const PrefixIndexSetup& setup);
  PrefixIndex(const PrefixIndex&) = delete;
  PrefixIndex& operator=(const PrefixIndex&) = delete;

  std::optional<Found> Find(const BlockContent& content) const;
  // `content` is not there and `block_id` holds nothing else.
  ContentId Add(const BlockContent& content, int32_t block_id);
  // The block is about to be used for something else. No-op for one that is not in the index.
  void Forget(int32_t block_id);

  bool Holds(int32_t block_id) const { return entries_[block_id].content != kNoContent; }
  int32_t num_held() const { return num_held_; }

  // Every block is in the chain of its hash once, and its parent is still there: INTERNAL names the
  // first that is not. O(num_blocks).
  absl::Status CheckInvariants() const;

 private:
  struct Entry {
    ContentId content = kNoContent;
    ContentId parent = kNoContent;
    uint64_t hash = 0;
    int32_t next = -1;  // in the chain of its bucket
  };

  std::span<const int32_t> TokensOf(int32_t block_id) const;
  bool Equals(int32_t block_id, const BlockContent& content) const;
  size_t BucketOf(uint64_t hash) const { return hash & (buckets_.size() - 1); }

  const int32_t block_tokens_;
  const uint64_t hash_seed_;
  const BlockHash hash_;

  std::vector<Entry> entries_;    // [num_blocks]
  std::vector<int32_t> tokens_;   // [num_blocks * block_tokens]
  std::vector<int32_t> buckets_;  // [power of two >= num_blocks]: first block of a chain, or -1
  std::unordered_map<int32_t, std::string> first_scopes_;  // of blocks without parent
  ContentId last_content_ = kNoContent;
  int32_t num_held_ = 0;
};

}  // namespace gatehouse
