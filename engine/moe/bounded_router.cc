#include "engine/moe/bounded_router.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_format.h"
#include "engine/moe/capacity.h"
#include "engine/moe/domain_router.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

using Contender = DomainRouter::Contender;

absl::Status CheckBelow(const char* name, int64_t value, int64_t end) {
  if (value >= 0 && value < end) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: got %d, expected one from 0, below %d", name, value, end));
}

absl::Status CheckToken(const RoutingStep& step, const RoutedToken& token) {
  GATEHOUSE_RETURN_IF_ERROR(CheckBelow("position", token.position, kNoBound));
  GATEHOUSE_RETURN_IF_ERROR(CheckBelow("rank", token.rank, step.num_ranks));
  if (token.policy_idx < 0 && token.mode == TokenMode::kExact) {
    return CheckBelow("home", token.home_device, step.placement.num_devices);
  }
  GATEHOUSE_RETURN_IF_ERROR(
      CheckBelow("policy", token.policy_idx, static_cast<int64_t>(step.policies.size())));
  const LayerPolicy& rules = step.policies[token.policy_idx];
  GATEHOUSE_RETURN_IF_ERROR(CheckBelow("home", token.home_device, rules.placement->num_devices));
  const bool in_block = token.mode == TokenMode::kBlock || token.mode == TokenMode::kBlockCausal;
  if (token.mode == TokenMode::kThreshold && rules.thresholds.empty()) {
    return absl::InvalidArgumentError("thresholds: got none, threshold mode needs one an expert");
  }
  if (in_block && rules.policy->block_tokens < 1) {
    return absl::InvalidArgumentError("block: got none, the block modes need its tokens");
  }
  return absl::OkStatus();
}

// Rows that are decided together, under one policy.
struct Pool {
  int32_t policy_idx = -1;
  std::vector<int32_t> rows;  // ascending
};

// One decision from start to end: rows are gathered into pools, in the order of R3, and what a pool
// placed is memory that later ones no longer find free.
class StepRouter {
 public:
  explicit StepRouter(const RoutingStep& step) : step_(step) {}

  absl::StatusOr<RouteDecision> Run() {
    MarkFailedRows();
    GATEHOUSE_RETURN_IF_ERROR(GatherPools());
    MakePairs();
    for (const auto& [policy_idx, pool] : unbounded_) RouteUnbounded(pool);
    for (const auto& [key, pool] : blocks_) RouteBlock(pool, std::get<bool>(key));
    RouteShared();
    return std::move(decision_);
  }

 private:
  struct Held {  // of one rank
    std::vector<int64_t> expert_rows;
    std::vector<int64_t> device_rows;
  };

  int num_rows() const { return step_.scores.num_rows; }
  int num_experts() const { return step_.scores.num_experts; }
  bool Routed(int row) const { return !step_.tokens[row].padding && !failed_[row]; }

  const LayerPolicy& RulesOf(int32_t policy_idx) const {
    return policy_idx < 0 ? no_policy_ : step_.policies[policy_idx];
  }

  void MarkFailedRows();
  absl::Status GatherPools();
  void MakePairs();
  std::vector<std::vector<int32_t>> ChosenRanks() const;
  void ChooseTokensByExpert(const Pool& pool, std::vector<std::vector<int32_t>>& chosen) const;
  std::vector<Contender> ContendersOf(const Pool& pool, bool in_block) const;
  PoolBounds Unbounded(const LayerPolicy& rules) const;
  void Hold(const Pool& pool);
  void RouteUnbounded(const Pool& pool);
  void RouteBlock(const Pool& pool, bool causal);
  void RouteShared();
  void RouteDomain(const Pool& pool, const DomainLoad& load, DomainBounds& domain);
  PoolBounds BoundsOf(const Pool& pool, const DomainLoad& load, DomainBounds& domain);
  std::vector<int64_t> RowsLeft(const LayerPolicy& rules, std::span<const int64_t> limits,
                                std::vector<int64_t> Held::*held, int32_t rank) const;
  std::vector<std::vector<float>> AffinitiesByExpert(const Pool& pool) const;
  int64_t NumPairs(const Pool& pool) const;

  const RoutingStep& step_;
  const RoutingPolicy exact_;  // by the default order
  const LayerPolicy no_policy_{.policy = &exact_, .placement = &step_.placement};
  RouteDecision decision_;
  std::vector<uint8_t> failed_;    // [num_rows]
  std::vector<int32_t> rank_idx_;  // beside decision_.pairs
  std::map<int32_t, Held> held_;   // by rank
  // In the order of R3.
  std::map<int32_t, Pool> unbounded_;                          // exact and threshold, by policy
  std::map<std::tuple<int64_t, int64_t, bool>, Pool> blocks_;  // by request, block, causal
  std::map<std::pair<int32_t, int32_t>, Pool> shared_;         // by domain, rank
};

// R3: a row that fails takes all rows of its request with it.
void StepRouter::MarkFailedRows() {
  std::set<int64_t> requests;
  for (int row = 0; row < num_rows(); ++row) {
    if (!step_.tokens[row].padding && step_.scores.row_failed[row]) {
      requests.insert(step_.tokens[row].request);
    }
  }
  failed_.resize(num_rows());
  for (int row = 0; row < num_rows(); ++row) {
    failed_[row] = !step_.tokens[row].padding && requests.contains(step_.tokens[row].request);
    if (failed_[row]) decision_.failed_rows.push_back(row);
  }
}

absl::Status StepRouter::GatherPools() {
  for (int row = 0; row < num_rows(); ++row) {
    if (!Routed(row)) continue;
    const RoutedToken& token = step_.tokens[row];
    const RoutingPolicy& policy = *RulesOf(token.policy_idx).policy;
    Pool* pool = nullptr;
    switch (token.mode) {
      case TokenMode::kExact:
      case TokenMode::kThreshold:
        pool = &unbounded_[token.policy_idx];
        break;
      case TokenMode::kBlock:
      case TokenMode::kBlockCausal:
        pool = &blocks_[{token.request, token.position / policy.block_tokens,
                         token.mode == TokenMode::kBlockCausal}];
        break;
      case TokenMode::kShared:
        pool = &shared_[{token.domain, policy.capacity.rank_local ? token.rank : 0}];
        break;
    }
    if (pool->rows.empty()) pool->policy_idx = token.policy_idx;
    if (pool->policy_idx != token.policy_idx) {
      return absl::InvalidArgumentError(
          absl::StrFormat("policy: got %d and %d in one domain or block, expected one",
                          pool->policy_idx, token.policy_idx));
    }
    pool->rows.push_back(row);
  }
  return absl::OkStatus();
}

// R7: as the gate chose, or as experts choose where the policy says so.
void StepRouter::MakePairs() {
  const std::vector<std::vector<int32_t>> chosen = ChosenRanks();
  const GateScores& scores = step_.scores;
  decision_.pair_begin.push_back(0);
  for (int row = 0; row < num_rows(); ++row) {
    int32_t slot = 0;
    for (const int32_t rank_idx : chosen[row]) {
      const int64_t at = scores.At(row, rank_idx);
      decision_.pairs.push_back({.row = row,
                                 .slot = slot++,
                                 .chosen_expert = scores.ranked_ids[at],
                                 .expert = scores.ranked_ids[at],
                                 .gate = scores.gate[at],
                                 .chosen_gate = scores.gate[at],
                                 .weight = scores.weight[at]});
      rank_idx_.push_back(rank_idx);
    }
    decision_.pair_begin.push_back(static_cast<int32_t>(decision_.pairs.size()));
  }
}

std::vector<std::vector<int32_t>> StepRouter::ChosenRanks() const {
  std::vector<std::vector<int32_t>> chosen(num_rows());
  for (int row = 0; row < num_rows(); ++row) {
    if (!Routed(row)) continue;
    for (int32_t i = 0; i < step_.scores.num_chosen[row]; ++i) chosen[row].push_back(i);
  }
  for (const auto& [domain, pool] : shared_) {
    const bool by_expert = RulesOf(pool.policy_idx).policy->expert_choice.has_value();
    if (by_expert) ChooseTokensByExpert(pool, chosen);
  }
  return chosen;
}

// Expert choice (arXiv 2202.09368): every expert takes its best rows, a row has as many experts as
// took it, the slots by affinity.
void StepRouter::ChooseTokensByExpert(const Pool& pool,
                                      std::vector<std::vector<int32_t>>& chosen) const {
  const RoutingPolicy& policy = *RulesOf(pool.policy_idx).policy;
  const std::vector<int32_t>& rows = pool.rows;
  struct Candidate {
    PairKey key;
    int32_t row = 0;
    int32_t rank_idx = 0;
  };
  std::vector<std::vector<Candidate>> candidates(num_experts());
  for (const int32_t row : rows) {
    chosen[row].clear();
    for (int32_t i = 0; i < step_.scores.num_ranked; ++i) {
      const int32_t expert = step_.scores.ranked_ids[step_.scores.At(row, i)];
      if (expert < 0) break;
      candidates[expert].push_back({KeyOf(step_, policy, {row, i, i}, /*in_block=*/false), row, i});
    }
  }
  const auto num_tokens = static_cast<double>(rows.size());
  const int64_t places = CeilNear(*policy.expert_choice * num_tokens / num_experts());
  for (std::vector<Candidate>& of_expert : candidates) {
    std::sort(of_expert.begin(), of_expert.end(),
              [](const Candidate& a, const Candidate& b) { return a.key < b.key; });
    const auto count = std::min<int64_t>(places, static_cast<int64_t>(of_expert.size()));
    for (int64_t i = 0; i < count; ++i) chosen[of_expert[i].row].push_back(of_expert[i].rank_idx);
  }
  for (const int32_t row : rows) {
    std::sort(chosen[row].begin(), chosen[row].end(), [&](int32_t a, int32_t b) {
      const float fa = step_.scores.affinity[step_.scores.At(row, a)];
      const float fb = step_.scores.affinity[step_.scores.At(row, b)];
      return fa != fb ? fa > fb : a < b;
    });
  }
}

std::vector<Contender> StepRouter::ContendersOf(const Pool& pool, bool in_block) const {
  const RoutingPolicy& policy = *RulesOf(pool.policy_idx).policy;
  std::vector<Contender> contenders;
  for (const int32_t row : pool.rows) {
    for (int32_t id = decision_.pair_begin[row]; id < decision_.pair_begin[row + 1]; ++id) {
      const RankedPair ranked{row, decision_.pairs[id].slot, rank_idx_[id]};
      contenders.push_back(
          {.id = id, .rank_idx = rank_idx_[id], .key = KeyOf(step_, policy, ranked, in_block)});
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

// What is placed holds memory that later domains do without (R11).
void StepRouter::Hold(const Pool& pool) {
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
      }
    }
  }
  DomainRouter router(step_, rules, Unbounded(rules), ContendersOf(pool, /*in_block=*/false),
                      decision_);
  router.ChooseByExpert();
  router.Reweigh();
  Hold(pool);
}

// R18: every block of a request is a pool of its own, with the places of a full block.
void StepRouter::RouteBlock(const Pool& pool, bool causal) {
  const LayerPolicy& rules = RulesOf(pool.policy_idx);
  const CapacityPolicy& policy = rules.policy->capacity;
  PoolBounds bounds = Unbounded(rules);
  bounds.in_block = true;
  if (policy.capacity.has_value()) {
    bounds.expert_places.assign(num_experts(), *policy.capacity);
  } else if (policy.factor.has_value()) {
    const double pairs = static_cast<double>(rules.policy->block_tokens) * step_.scores.top_k;
    bounds.expert_places.assign(num_experts(), CeilNear(*policy.factor * pairs / num_experts()));
  }
  decision_.block_bounds.push_back({.ceiling = bounds.expert_places[0],
                                    .floors = bounds.floors,
                                    .expert_places = bounds.expert_places,
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
  router.Reweigh();
  Hold(pool);
}

void StepRouter::RouteShared() {
  std::map<int32_t, DomainLoad> of_domain;
  for (const auto& [key, pool] : shared_) {
    of_domain[key.first].num_tokens += static_cast<int64_t>(pool.rows.size());
    of_domain[key.first].num_pairs += NumPairs(pool);
  }
  for (const auto& [key, pool] : shared_) {
    const DomainLoad& whole = of_domain[key.first];
    const DomainLoad load{.num_tokens = static_cast<int64_t>(pool.rows.size()),
                          .num_pairs = NumPairs(pool),
                          .switch_tokens = whole.num_tokens,
                          .switch_pairs = whole.num_pairs};
    decision_.bounds.push_back({.domain = key.first, .rank = key.second});
    RouteDomain(pool, load, decision_.bounds.back());
    Hold(pool);
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
  if (by_expert_choice) return;
  router.TrimDevices(domain.device_pressure);
  router.Reroute();
  router.Cover();
  router.Reweigh();
}

// R9 to R11.
PoolBounds StepRouter::BoundsOf(const Pool& pool, const DomainLoad& load, DomainBounds& domain) {
  const LayerPolicy& rules = RulesOf(pool.policy_idx);
  CapacityPolicy policy = rules.policy->capacity;
  if (policy.rank_local) {  // R19
    policy.zeta.reset();
    policy.tile = 1;
  }
  domain.ceiling = ExpertCeiling(policy, load, num_experts());
  domain.expert_pressure.assign(num_experts(), 0);
  PoolBounds bounds = Unbounded(rules);
  const RowLimits& limits = step_.limits;
  if (!limits.expert_rows.empty()) {
    bounds.expert_rows = RowsLeft(rules, limits.expert_rows, &Held::expert_rows, domain.rank);
  }
  if (!limits.device_rows.empty()) {
    bounds.device_rows = RowsLeft(rules, limits.device_rows, &Held::device_rows, domain.rank);
  }
  const std::vector<std::vector<float>> affinities = AffinitiesByExpert(pool);
  for (int e = 0; e < num_experts(); ++e) {
    const int64_t floor =
        ExpertFloor(policy, affinities[e], domain.ceiling, load.num_tokens, num_experts());
    bounds.floors[e] = floor;
    bounds.expert_places[e] = ExpertPlaces(policy, domain.ceiling, floor, bounds.expert_rows[e]);
    const auto num_pairs = static_cast<int64_t>(affinities[e].size());
    domain.expert_pressure[e] = std::min(floor, num_pairs) > bounds.expert_places[e];
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

// [num_experts] affinities of the pairs of `rows`, descending.
std::vector<std::vector<float>> StepRouter::AffinitiesByExpert(const Pool& pool) const {
  std::vector<std::vector<float>> affinities(num_experts());
  for (const int32_t row : pool.rows) {
    for (int32_t id = decision_.pair_begin[row]; id < decision_.pair_begin[row + 1]; ++id) {
      affinities[decision_.pairs[id].expert].push_back(
          step_.scores.affinity[step_.scores.At(row, rank_idx_[id])]);
    }
  }
  if (RulesOf(pool.policy_idx).policy->capacity.affinity_mass.has_value()) {
    for (auto& of_expert : affinities) {
      std::sort(of_expert.begin(), of_expert.end(), std::greater<>());
    }
  }
  return affinities;
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
  const size_t num_limits = step.limits.device_rows.size();
  for (const LayerPolicy& rules : step.policies) {
    if (num_limits == 0 || num_limits == static_cast<size_t>(rules.placement->num_devices))
      continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("devices: the policy places experts on %d, memory is given for %d",
                        rules.placement->num_devices, num_limits));
  }
  for (const RoutedToken& token : step.tokens) {
    if (!token.padding) GATEHOUSE_RETURN_IF_ERROR(CheckToken(step, token));
  }
  return StepRouter(step).Run();
}

}  // namespace gatehouse
