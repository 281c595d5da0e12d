#include "engine/moe/pair_key.h"

#include <bit>

namespace gatehouse {
namespace {

// Ascending as the numbers descend; -0 equals +0.
uint32_t DescendingBits(float value) {
  const uint32_t bits = value == 0 ? 0 : std::bit_cast<uint32_t>(value);
  return (bits >> 31) != 0 ? bits : ~(bits | 0x80000000u);
}

uint32_t RankOf(const RoutingStep& step, PairOrder order, int32_t row, int64_t at) {
  switch (order) {
    case PairOrder::kScore:
      return DescendingBits(step.scores.affinity[at]);
    case PairOrder::kArrival:
      return static_cast<uint32_t>(row);
    case PairOrder::kReverse:
      return ~static_cast<uint32_t>(row);
    case PairOrder::kRandom:
      break;
  }
  return 0;
}

uint32_t TierOf(PairTier tier, int32_t slot) {
  switch (tier) {
    case PairTier::kOff:
      break;
    case PairTier::kFirst:
      return slot == 0 ? 0 : 1;
    case PairTier::kRank:
      return static_cast<uint32_t>(slot);
  }
  return 0;
}

}  // namespace

PairKey KeyOf(const RoutingStep& step, const RoutingPolicy& policy, const RankedPair& pair,
              bool in_block) {
  const int64_t at = step.scores.At(pair.row, pair.rank_idx);
  const RoutedToken& token = step.tokens[pair.row];
  return {.rank = uint64_t{TierOf(policy.tier, pair.slot)} << 32 |
                  RankOf(step, policy.order, pair.row, at),
          .tie_key = in_block ? static_cast<uint64_t>(token.position) : token.tie_key,
          .expert = step.scores.ranked_ids[at]};
}

}  // namespace gatehouse
