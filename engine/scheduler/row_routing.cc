#include "engine/scheduler/row_routing.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <vector>

#include "absl/strings/str_format.h"

namespace gatehouse {
namespace {

// Domains of decodes have the lower numbers (R3): groups are fewer than sequences.
constexpr int32_t kFirstPrefillDomain = 1 << 24;

bool IsBlockMode(TokenMode mode) {
  return mode == TokenMode::kBlock || mode == TokenMode::kBlockCausal;
}

uint64_t HashOf(const HashKey& key, std::span<const uint64_t> words) {
  return KeyedHash(key, std::as_bytes(words));
}

// Of what the client said, never of the server's counters: those tell of others' requests.
uint64_t RequestHash(const HashKey& key, const Request& request) {
  if (request.has_client_id) return KeyedHash(key, std::as_bytes(std::span(request.id)));
  return KeyedHash(key, std::as_bytes(std::span(request.prompt_ids)));
}

// No two pairs of tenant and salt give one scope: the length tells where the name ends, and only
// isolated ones begin with a letter.
std::string CacheScopeOf(const Request& request) {
  const std::string tenant = request.tenant == nullptr ? Tenant{}.name : request.tenant->name;
  std::string scope = absl::StrFormat("%d:%s%s", tenant.size(), tenant, request.cache_salt);
  if (request.mode != RoutingMode::kIsolated) return scope;
  return absl::StrFormat("v%d/%s", request.policy->version, scope);
}

}  // namespace

void SetRouting(const RoutingGrid& grid, Sequence& sequence) {
  const Request& request = *sequence.request;
  sequence.cache_scope = CacheScopeOf(request);
  if (request.policy == nullptr) return;
  const PinnedPolicy& policy = *request.policy;
  const uint64_t request_hash = RequestHash(grid.secret, request);
  const auto output = static_cast<uint64_t>(sequence.output_index);
  sequence.tie_key = HashOf(grid.secret, std::array{request_hash, output});
  sequence.home_device =
      static_cast<int32_t>(request_hash % static_cast<uint64_t>(policy.placement.num_devices));
  if (request.mode == RoutingMode::kShared) {
    sequence.chunk_quantum = std::min(kSharedChunkTokens, grid.max_chunk_tokens);
    return;
  }
  // Generated positions are exact: as part of another's prompt they would not be.
  if (!policy.bound_decode) sequence.sharable_end = sequence.num_prompt_tokens;
  if (IsBlockMode(policy.mode)) {
    const auto block = static_cast<int32_t>(policy.policy.block_tokens);
    sequence.chunk_quantum = block;
    sequence.group_blocks = std::max(block / grid.block_tokens, 1);
    sequence.sharable_end = sequence.num_prompt_tokens / block * block;
  }
}

int32_t ChunkEnd(const Sequence& sequence, int32_t limit) {
  if (limit >= sequence.num_prompt_tokens) return limit;
  const int32_t end = limit / sequence.chunk_quantum * sequence.chunk_quantum;
  return std::max(end, sequence.num_computed);
}

int32_t FirstChunkEnd(const Sequence& sequence) {
  const int32_t quantum = sequence.chunk_quantum;
  if (sequence.num_computed >= sequence.num_prompt_tokens) return sequence.num_computed + 1;
  return std::min((sequence.num_computed / quantum + 1) * quantum, sequence.num_prompt_tokens);
}

RoutedToken TokenOf(const Sequence& sequence, int32_t position, const RowPolicy& row,
                    const HashKey& secret) {
  RoutedToken token{.request = static_cast<int64_t>(sequence.id), .position = position};
  const PinnedPolicy* const policy = sequence.request->policy.get();
  const bool is_prompt = position < sequence.num_prompt_tokens;
  if (policy == nullptr || !(is_prompt || policy->bound_decode)) return token;
  token.mode = policy->mode;
  token.policy_idx = row.policy_idx;
  token.domain = (is_prompt ? kFirstPrefillDomain : 0) + row.group;
  token.home_device = sequence.home_device;
  token.tie_key = HashOf(secret, std::array{sequence.tie_key, static_cast<uint64_t>(position)});
  return token;
}

}  // namespace gatehouse
