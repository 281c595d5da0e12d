#include "engine/cache/prefix_index.h"

#include <algorithm>
#include <bit>
#include <unordered_set>

#include "absl/strings/str_format.h"
#include "kernels/base/check.h"

namespace gatehouse {
namespace {

// Folded 128-bit product (wyhash's step): one multiplication for two tokens.
uint64_t Mix(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a ^ 0x9e3779b97f4a7c15u) * (b ^ 0xbf58476d1ce4e5b9u);
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

}  // namespace

uint64_t HashBlock(uint64_t seed, const BlockContent& content) {
  uint64_t hash = Mix(seed, content.parent);
  for (const char byte : content.scope) hash = Mix(hash, static_cast<unsigned char>(byte));
  const std::span<const int32_t> tokens = content.tokens;
  for (size_t i = 0; i + 1 < tokens.size(); i += 2) {
    const auto high = static_cast<uint64_t>(static_cast<uint32_t>(tokens[i])) << 32;
    hash = Mix(hash, high | static_cast<uint32_t>(tokens[i + 1]));
  }
  if (tokens.size() % 2 == 1) hash = Mix(hash, static_cast<uint32_t>(tokens.back()));
  return Mix(hash, seed);
}

PrefixIndex::PrefixIndex(const PrefixIndexSetup& setup)
    : block_tokens_(setup.block_tokens), hash_seed_(setup.hash_seed), hash_(setup.hash) {
  GATEHOUSE_CHECK(setup.num_blocks >= 1 && block_tokens_ >= 1)
      << setup.num_blocks << " blocks of " << block_tokens_;
  const auto num_blocks = static_cast<size_t>(setup.num_blocks);
  entries_.resize(num_blocks);
  tokens_.resize(num_blocks * static_cast<size_t>(block_tokens_));
  buckets_.assign(std::bit_ceil(num_blocks), -1);
}

std::optional<PrefixIndex::Found> PrefixIndex::Find(const BlockContent& content) const {
  const uint64_t hash = hash_(hash_seed_, content);
  for (int32_t id = buckets_[BucketOf(hash)]; id >= 0; id = entries_[id].next) {
    if (entries_[id].hash == hash && Equals(id, content)) return Found{id, entries_[id].content};
  }
  return std::nullopt;
}

ContentId PrefixIndex::Add(const BlockContent& content, int32_t block_id) {
  GATEHOUSE_CHECK(!Holds(block_id)) << "block " << block_id << " holds another content";
  GATEHOUSE_CHECK(static_cast<int32_t>(content.tokens.size()) == block_tokens_)
      << content.tokens.size() << " tokens, a block has " << block_tokens_;
  Entry& entry = entries_[block_id];
  entry.content = ++last_content_;
  entry.parent = content.parent;
  entry.hash = hash_(hash_seed_, content);
  int32_t& first = buckets_[BucketOf(entry.hash)];
  entry.next = first;
  first = block_id;
  std::copy(content.tokens.begin(), content.tokens.end(),
            tokens_.begin() + static_cast<int64_t>(block_id) * block_tokens_);
  if (content.parent == kNoContent) first_scopes_.emplace(block_id, content.scope);
  ++num_held_;
  return entry.content;
}

void PrefixIndex::Forget(int32_t block_id) {
  if (!Holds(block_id)) return;
  Entry& entry = entries_[block_id];
  int32_t* link = &buckets_[BucketOf(entry.hash)];
  while (*link != block_id) link = &entries_[*link].next;
  *link = entry.next;
  if (entry.parent == kNoContent) first_scopes_.erase(block_id);
  entry = {};
  --num_held_;
}

absl::Status PrefixIndex::CheckInvariants() const {
  std::unordered_set<ContentId> contents;
  int32_t num_held = 0, num_chained = 0;
  for (const Entry& entry : entries_) {
    if (entry.content == kNoContent) continue;
    ++num_held;
    contents.insert(entry.content);
  }
  for (size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    for (int32_t id = buckets_[bucket]; id >= 0; id = entries_[id].next) {
      const Entry& entry = entries_[id];
      const bool has_parent = entry.parent == kNoContent ? first_scopes_.count(id) == 1
                                                         : contents.count(entry.parent) == 1;
      if (entry.content == kNoContent || BucketOf(entry.hash) != bucket || !has_parent) {
        return absl::InternalError(
            absl::StrFormat("block %d: content %d in bucket %d, parent %d there: %d", id,
                            entry.content, bucket, entry.parent, has_parent));
      }
      if (++num_chained > num_held) return absl::InternalError("a chain has a loop");
    }
  }
  if (num_held != num_held_ || num_chained != num_held_ ||
      static_cast<int32_t>(contents.size()) != num_held_) {
    return absl::InternalError(absl::StrFormat("%d blocks have a content, %d are chained, %d held",
                                               num_held, num_chained, num_held_));
  }
  return absl::OkStatus();
}

std::span<const int32_t> PrefixIndex::TokensOf(int32_t block_id) const {
  return std::span(tokens_).subspan(static_cast<size_t>(block_id) * block_tokens_, block_tokens_);
}

bool PrefixIndex::Equals(int32_t block_id, const BlockContent& content) const {
  if (entries_[block_id].parent != content.parent) return false;
  const std::span<const int32_t> tokens = TokensOf(block_id);
  if (!std::equal(tokens.begin(), tokens.end(), content.tokens.begin(), content.tokens.end())) {
    return false;
  }
  return content.parent != kNoContent || first_scopes_.at(block_id) == content.scope;
}

}  // namespace gatehouse
