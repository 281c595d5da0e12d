#include "engine/moe/bounded_router.h"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <tuple>
#include <utility>

#include "engine/moe/capacity.h"
#include "engine/moe/domain_router.h"
#include "engine/moe/expert_choice.h"
#include "engine/moe/step_pools.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

using Contender = DomainRouter::Contender;

// One decision from start to end: rows are gathered into pools, in the order of R3, and what a pool
// placed is memory that later ones no longer find free.
class StepRouter {
 public:
  StepRouter(const RoutingStep& step, StepPools pools) : step_(step), pools_(std::move(pools)) {
    decision_.failed_rows = pools_.failed_rows;
  }

  RouteDecision Run() {
    MakePairs();
    for (const auto& [policy_idx, pool] : pools_.unbounded) RouteUnbounded(pool);
    for (const auto& [key, pool] : pools_.blocks) RouteBlock(pool, std::get<bool>(key));
    RouteShared();
    return std::move(decision_);
  }

 private:
  struct Held {  // of one rank
    std::vector<int64_t> expert_rows;
    std::vector<int64_t> device_rows;
  };

  // Affinities of a pool's pairs, descending where a floor looks at them.
  struct PairsByExpert {
    std::vector<int32_t> begin;  // [num_experts + 1] into affinities
    std::vector<float> affinities;
    std::span<const float> affinities_of(int expert) const {
      return std::span(affinities).subspan(begin[expert], begin[expert + 1] - begin[expert]);
    }
  };

  int num_rows() const { return step_.scores.num_rows; }
  int num_experts() const { return step_.scores.num_experts; }
  bool Routed(int row) const {
    return !step_.tokens[row].padding &&
           !std::binary_search(pools_.failed_rows.begin(), pools_.failed_rows.end(), row);
  }

  const LayerPolicy& RulesOf(int32_t policy_idx) const {
    return policy_idx < 0 ? no_policy_ : step_.policies[policy_idx];
  }

  void MakePairs();
  void AppendPair(int32_t row, int32_t rank_idx);
  std::span<PairDecision> PairsOf(int32_t row) {
    return std::span(decision_.pairs)
        .subspan(decision_.pair_begin[row],
                 decision_.pair_begin[row + 1] - decision_.pair_begin[row]);
  }
  std::vector<Contender> ContendersOf(const Pool& pool, bool in_block) const;
  PoolBounds Unbounded(const LayerPolicy& rules) const;
  void Settle(const Pool& pool);
  void RouteUnbounded(const Pool& pool);
  void RouteBlock(const Pool& pool, bool causal);
  void RouteShared();
  void RouteDomain(const Pool& pool, const DomainLoad& load, DomainBounds& domain);
  PoolBounds BoundsOf(const Pool& pool, const DomainLoad& load, DomainBounds& domain);
  std::vector<int64_t> RowsLeft(const LayerPolicy& rules, std::span<const int64_t> limits,
                                std::vector<int64_t> Held::*held, int32_t rank) const;
  PairsByExpert GatherByExpert(const Pool& pool);
  int64_t NumPairs(const Pool& pool) const;

  const RoutingStep& step_;
  const RoutingPolicy exact_;  // by the default order
  const LayerPolicy no_policy_{.policy = &exact_, .placement = &step_.placement};
  RouteDecision decision_;
  const StepPools pools_;
  std::vector<int32_t> rank_idx_;  // beside decision_.pairs
  std::map<int32_t, Held> held_;   // by rank
};

// R7: as the gate chose, or as experts choose where the policy says so.
void StepRouter::MakePairs() {
  const GateScores& scores = step_.scores;
  std::map<int32_t, std::vector<int32_t>> chosen;  // ranks of rows that experts chose
  for (const auto& [domain, pool] : pools_.shared) {
    const RoutingPolicy& policy = *RulesOf(pool.policy_idx).policy;
    if (policy.expert_choice.has_value()) ChooseTokensByExpert(step_, policy, pool.rows, chosen);
  }
  const size_t most = static_cast<size_t>(scores.num_rows) * scores.top_k;
  decision_.pairs.reserve(most);
  rank_idx_.reserve(most);
  decision_.pair_begin.reserve(scores.num_rows + 1);
  decision_.pair_begin.push_back(0);
  for (int32_t row = 0; row < num_rows(); ++row) {
    const auto by_expert = chosen.empty() ? chosen.end() : chosen.find(row);
    if (by_expert != chosen.end()) {
      for (const int32_t rank_idx : by_expert->second) AppendPair(row, rank_idx);
    } else if (Routed(row)) {
      for (int32_t i = 0; i < scores.num_chosen[row]; ++i) AppendPair(row, i);
    }
    decision_.pair_begin.push_back(static_cast<int32_t>(decision_.pairs.size()));
  }
}

void StepRouter::AppendPair(int32_t row, int32_t rank_idx) {
  const GateScores& scores = step_.scores;
  const int64_t at = scores.At(row, rank_idx);
  const auto slot = static_cast<int32_t>(decision_.pairs.size()) - decision_.pair_begin.back();
  decision_.pairs.push_back({.row = row,
                             .slot = slot,
                             .chosen_expert = scores.ranked_ids[at],
                             .expert = scores.ranked_ids[at],
                             .gate = scores.gate[at],
                             .chosen_gate = scores.gate[at],
                             .weight = scores.weight[at],
                             .chosen_weight = scores.weight[at]});
  rank_idx_.push_back(rank_idx);
}

std::vector<Contender> StepRouter::ContendersOf(const Pool& pool, bool in_block) const {
  const RoutingPolicy& policy = *RulesOf(pool.policy_idx).policy;
  std::vector<Contender> contenders;
  contenders.reserve(NumPairs(pool));
  for (const int32_t row : pool.rows) {
    for (int32_t id = decision_.pair_begin[row]; id < decision_.pair_begin[row + 1]; ++id) {
      const RankedPair ranked{row, decision_.pairs[id].slot, rank_idx_[id]};
      contenders.push_back({.id = id, .key = KeyOf(step_, policy, ranked, in_block)});
    }
  }
  return contenders;
}

PoolBounds StepRouter::Unbounded(const LayerPolicy& rules) const {
  const std::vector<int64_t> experts(num_experts(), kNoBound);
  const std::vector<int64_t> devices(rules.placement->num_devices, kNoBound);
  return {.expert_places = experts,
          .floors = std::vector<int64_t>(num_experts()),
          .device_budgets = devices,
          .expert_rows = experts,
          .device_rows = devices};
}

// R16, and what is placed holds memory that later domains do without (R11).
void StepRouter::Settle(const Pool& pool) {
  const RoutingPolicy& policy = *RulesOf(pool.policy_idx).policy;
  for (const int32_t row : pool.rows) Reweigh(policy, PairsOf(row));
  if (step_.limits.expert_rows.empty() && step_.limits.device_rows.empty()) return;
  for (const int32_t row : pool.rows) {
    Held& held = held_[step_.tokens[row].rank];
    held.expert_rows.resize(step_.limits.expert_rows.size());
    held.device_rows.resize(step_.limits.device_rows.size());
    for (int32_t id = decision_.pair_begin[row]; id < decision_.pair_begin[row + 1]; ++id) {
      const PairDecision& pair = decision_.pairs[id];
      if (pair.device < 0) continue;
      if (!held.expert_rows.empty()) ++held.expert_rows[pair.expert];
      if (!held.device_rows.empty()) ++held.device_rows[pair.device];
    }
  }
}

// R18: no bound, but for what falls below a threshold of its own. One pool for the copies.
void StepRouter::RouteUnbounded(const Pool& pool) {
  const LayerPolicy& rules = RulesOf(pool.policy_idx);
  for (const int32_t row : pool.rows) {
    if (step_.tokens[row].mode == TokenMode::kExact) continue;
    for (int32_t id = decision_.pair_begin[row]; id < decision_.pair_begin[row + 1]; ++id) {
      PairDecision& pair = decision_.pairs[id];
      const float affinity = step_.scores.affinity[step_.scores.At(row, rank_idx_[id])];
      if (pair.slot > 0 && affinity < rules.thresholds[pair.expert]) {
        pair.fate = PairFate::kDropped;
        pair.cause = EvictionCause::kThreshold;
      }
    }
  }
  const ExpertPlacement& placement = *rules.placement;
  if (placement.num_copies() == placement.num_experts()) {  // nothing to choose
    for (const int32_t row : pool.rows) {
      for (PairDecision& pair : PairsOf(row)) {
        if (pair.fate == PairFate::kKept) pair.device = placement.copy_devices[pair.expert];
      }
    }
  } else {
    DomainRouter(step_, rules, Unbounded(rules), ContendersOf(pool, /*in_block=*/false), decision_)
        .ChooseByExpert();
  }
  Settle(pool);
}

// R18: every block of a request is a pool of its own, with the places of a full block.
void StepRouter::RouteBlock(const Pool& pool, bool causal) {
  const LayerPolicy& rules = RulesOf(pool.policy_idx);
  const CapacityPolicy& policy = rules.policy->capacity;
  PoolBounds bounds = Unbounded(rules);
  bounds.in_block = true;
  BoundCause cause = BoundCause::kNone;
  if (policy.capacity.has_value()) {
    bounds.expert_places.assign(num_experts(), *policy.capacity);
    cause = BoundCause::kFixed;
  } else if (policy.factor.has_value()) {
    const double pairs = static_cast<double>(rules.policy->block_tokens) * step_.scores.top_k;
    bounds.expert_places.assign(num_experts(), CeilNear(*policy.factor * pairs / num_experts()));
    cause = BoundCause::kFactor;
  }
  decision_.block_bounds.push_back({.ceiling = bounds.expert_places[0],
                                    .floors = bounds.floors,
                                    .expert_places = bounds.expert_places,
                                    .expert_causes = std::vector(num_experts(), cause),
                                    .device_budgets = bounds.device_budgets});
  DomainRouter router(step_, rules, std::move(bounds), ContendersOf(pool, /*in_block=*/true),
                      decision_);
  if (causal) {
    router.ChooseByPosition();
  } else {
    router.ChooseByExpert();
    router.Reroute();
    router.Cover();
  }
  Settle(pool);
}

void StepRouter::RouteShared() {
  std::map<int32_t, DomainLoad> of_domain;
  for (const auto& [key, pool] : pools_.shared) {
    of_domain[key.first].num_tokens += static_cast<int64_t>(pool.rows.size());
    of_domain[key.first].num_pairs += NumPairs(pool);
  }
  for (const auto& [key, pool] : pools_.shared) {
    const DomainLoad& whole = of_domain[key.first];
    const DomainLoad load{.num_tokens = static_cast<int64_t>(pool.rows.size()),
                          .num_pairs = NumPairs(pool),
                          .switch_tokens = whole.num_tokens,
                          .switch_pairs = whole.num_pairs};
    decision_.bounds.push_back({.domain = key.first, .rank = key.second});
    RouteDomain(pool, load, decision_.bounds.back());
    Settle(pool);
  }
}

void StepRouter::RouteDomain(const Pool& pool, const DomainLoad& load, DomainBounds& domain) {
  const LayerPolicy& rules = RulesOf(pool.policy_idx);
  const bool by_expert_choice = rules.policy->expert_choice.has_value();
  PoolBounds bounds = by_expert_choice ? Unbounded(rules) : BoundsOf(pool, load, domain);
  domain.expert_places = bounds.expert_places;
  domain.floors = bounds.floors;
  domain.device_budgets = bounds.device_budgets;
  domain.device_pressure.assign(rules.placement->num_devices, 0);
  domain.expert_pressure.resize(num_experts());
  DomainRouter router(step_, rules, std::move(bounds), ContendersOf(pool, /*in_block=*/false),
                      decision_);
  router.ChooseByExpert();
  if (!by_expert_choice) {
    router.TrimDevices(domain.device_pressure);
    router.Reroute();
    router.Cover();
  }
  domain.device_loads = router.device_loads();
}

// R9 to R11.
PoolBounds StepRouter::BoundsOf(const Pool& pool, const DomainLoad& load, DomainBounds& domain) {
  const LayerPolicy& rules = RulesOf(pool.policy_idx);
  CapacityPolicy policy = rules.policy->capacity;
  if (policy.rank_local) {  // R19
    policy.zeta.reset();
    policy.tile = 1;
  }
  const Places ceiling = ExpertCeiling(policy, load, num_experts());
  domain.ceiling = ceiling.count;
  domain.expert_pressure.assign(num_experts(), 0);
  PoolBounds bounds = Unbounded(rules);
  const RowLimits& limits = step_.limits;
  if (!limits.expert_rows.empty()) {
    bounds.expert_rows = RowsLeft(rules, limits.expert_rows, &Held::expert_rows, domain.rank);
  }
  if (!limits.device_rows.empty()) {
    bounds.device_rows = RowsLeft(rules, limits.device_rows, &Held::device_rows, domain.rank);
  }
  const PairsByExpert pairs = GatherByExpert(pool);
  for (int e = 0; e < num_experts(); ++e) {
    const std::span<const float> affinities = pairs.affinities_of(e);
    const Places floor =
        ExpertFloor(policy, affinities, ceiling.count, load.num_tokens, num_experts());
    const Places places = ExpertPlaces(policy, ceiling, floor, bounds.expert_rows[e]);
    bounds.floors[e] = floor.count;
    bounds.expert_places[e] = places.count;
    domain.expert_causes.push_back(places.cause);
    const auto num_pairs = static_cast<int64_t>(affinities.size());
    domain.expert_pressure[e] = std::min(floor.count, num_pairs) > places.count;
  }
  bounds.device_budgets =
      DeviceBudgets(policy, *rules.placement, load.num_pairs, bounds.device_rows);
  return bounds;
}

// Memory less what is held; ranks that count for themselves share it evenly (R19).
std::vector<int64_t> StepRouter::RowsLeft(const LayerPolicy& rules, std::span<const int64_t> limits,
                                          std::vector<int64_t> Held::*held, int32_t rank) const {
  const bool rank_local = rules.policy->capacity.rank_local;
  std::vector<int64_t> left(limits.begin(), limits.end());
  for (size_t i = 0; i < left.size(); ++i) {
    if (left[i] == kNoBound) continue;
    if (rank_local) left[i] /= step_.num_ranks;
    for (const auto& [holder, rows] : held_) {
      if (!rank_local || holder == rank) left[i] -= (rows.*held)[i];
    }
    left[i] = std::max<int64_t>(0, left[i]);
  }
  return left;
}

StepRouter::PairsByExpert StepRouter::GatherByExpert(const Pool& pool) {
  PairsByExpert pairs{.begin = std::vector<int32_t>(num_experts() + 1)};
  for (const int32_t row : pool.rows) {
    for (const PairDecision& pair : PairsOf(row)) ++pairs.begin[pair.expert + 1];
  }
  std::partial_sum(pairs.begin.begin(), pairs.begin.end(), pairs.begin.begin());
  pairs.affinities.resize(pairs.begin.back());
  std::vector<int32_t> next(pairs.begin.begin(), pairs.begin.end() - 1);
  for (const int32_t row : pool.rows) {
    for (int32_t id = decision_.pair_begin[row]; id < decision_.pair_begin[row + 1]; ++id) {
      pairs.affinities[next[decision_.pairs[id].expert]++] =
          step_.scores.affinity[step_.scores.At(row, rank_idx_[id])];
    }
  }
  if (RulesOf(pool.policy_idx).policy->capacity.affinity_mass.has_value()) {
    for (int e = 0; e < num_experts(); ++e) {
      std::sort(pairs.affinities.begin() + pairs.begin[e],
                pairs.affinities.begin() + pairs.begin[e + 1], std::greater<>());
    }
  }
  return pairs;
}

int64_t StepRouter::NumPairs(const Pool& pool) const {
  int64_t count = 0;
  for (const int32_t row : pool.rows) {
    count += decision_.pair_begin[row + 1] - decision_.pair_begin[row];
  }
  return count;
}

}  // namespace

absl::StatusOr<RouteDecision> RouteBounded(const RoutingStep& step) {
  GATEHOUSE_ASSIGN_OR_RETURN(StepPools pools, GatherPools(step));
  return StepRouter(step, std::move(pools)).Run();
}

}  // namespace gatehouse
