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

absl::Status CheckToken(const RoutingStep& step, const RoutedToken& token) {
  if (token.home_device < 0 || token.home_device >= step.placement.num_devices) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "home: got %d, expected a device below %d", token.home_device, step.placement.num_devices));
  }
  if (token.rank < 0 || token.rank >= step.num_ranks) {
    return absl::InvalidArgumentError(
        absl::StrFormat("rank: got %d, expected one below %d", token.rank, step.num_ranks));
  }
  if (token.position < 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("position: got %d, expected 0 or more", token.position));
  }
  const bool in_block = token.mode == TokenMode::kBlock || token.mode == TokenMode::kBlockCausal;
  if (token.mode == TokenMode::kThreshold && step.policy.thresholds.empty()) {
    return absl::InvalidArgumentError("thresholds: got none, threshold mode needs one an expert");
  }
  if (in_block && step.policy.block_tokens < 1) {
    return absl::InvalidArgumentError("block: got none, the block modes need its tokens");
  }
  return absl::OkStatus();
}

// One decision from start to end: rows are gathered into pools, in the order of R3, and what a pool
// placed is memory that later ones no longer find free.
class StepRouter {
 public:
  explicit StepRouter(const RoutingStep& step) : step_(step) {}

  RouteDecision Run() {
    MarkFailedRows();
    MakePairs();
    RouteExactAndThreshold();
    RouteBlocks();
    RouteShared();
    return std::move(decision_);
  }

 private:
  int num_rows() const { return step_.scores.num_rows; }
  int num_experts() const { return step_.scores.num_experts; }
  int num_devices() const { return step_.placement.num_devices; }
  bool Routed(int row) const { return !step_.tokens[row].padding && !failed_[row]; }

  void MarkFailedRows();
  void MakePairs();
  std::vector<std::vector<int32_t>> ChosenRanks() const;
  void ChooseTokensByExpert(const std::vector<int32_t>& rows,
                            std::vector<std::vector<int32_t>>& chosen) const;
  std::map<std::pair<int32_t, int32_t>, std::vector<int32_t>> SharedRows() const;
  std::vector<Contender> ContendersOf(const std::vector<int32_t>& rows, bool in_block) const;
  PoolBounds Unbounded() const;
  void Hold(const std::vector<int32_t>& rows);
  void RouteExactAndThreshold();
  void RouteBlocks();
  void RouteShared();
  void RouteDomain(const std::vector<int32_t>& rows, const DomainLoad& load, DomainBounds& domain);
  PoolBounds BoundsOf(const std::vector<int32_t>& rows, const DomainLoad& load,
                      DomainBounds& domain);
  std::vector<int64_t> RowsLeft(const std::vector<int64_t>& limits,
                                const std::vector<int64_t>& held) const;
  std::vector<std::vector<float>> AffinitiesByExpert(const std::vector<int32_t>& rows) const;
  int64_t NumPairs(const std::vector<int32_t>& rows) const;
  int32_t RankOf(int32_t row) const {
    return step_.policy.capacity.rank_local ? step_.tokens[row].rank : 0;
  }

  struct Held {
    std::vector<int64_t> expert_rows;
    std::vector<int64_t> device_rows;
  };

  const RoutingStep& step_;
  RouteDecision decision_;
  std::vector<uint8_t> failed_;    // [num_rows]
  std::vector<int32_t> rank_idx_;  // beside decision_.pairs
  std::map<int32_t, Held> held_;   // by rank; 0 alone unless ranks count for themselves
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
  if (step_.policy.expert_choice.has_value()) {
    for (const auto& [domain, rows] : SharedRows()) ChooseTokensByExpert(rows, chosen);
  }
  return chosen;
}

// Expert choice (arXiv 2202.09368): every expert takes its best rows, a row has as many experts as
// took it, the slots by affinity.
void StepRouter::ChooseTokensByExpert(const std::vector<int32_t>& rows,
                                      std::vector<std::vector<int32_t>>& chosen) const {
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
      candidates[expert].push_back({KeyOf(step_, {row, i, i}, /*in_block=*/false), row, i});
    }
  }
  const auto num_tokens = static_cast<double>(rows.size());
  const int64_t places = CeilNear(*step_.policy.expert_choice * num_tokens / num_experts());
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

// Shared rows by domain and, where ranks count for themselves, by rank.
std::map<std::pair<int32_t, int32_t>, std::vector<int32_t>> StepRouter::SharedRows() const {
  std::map<std::pair<int32_t, int32_t>, std::vector<int32_t>> rows;
  for (int row = 0; row < num_rows(); ++row) {
    const RoutedToken& token = step_.tokens[row];
    if (!Routed(row) || token.mode != TokenMode::kShared) continue;
    rows[{token.domain, RankOf(row)}].push_back(row);
  }
  return rows;
}

std::vector<Contender> StepRouter::ContendersOf(const std::vector<int32_t>& rows,
                                                bool in_block) const {
  std::vector<Contender> contenders;
  for (const int32_t row : rows) {
    for (int32_t id = decision_.pair_begin[row]; id < decision_.pair_begin[row + 1]; ++id) {
      const RankedPair ranked{row, decision_.pairs[id].slot, rank_idx_[id]};
      contenders.push_back(
          {.id = id, .rank_idx = rank_idx_[id], .key = KeyOf(step_, ranked, in_block)});
    }
  }
  return contenders;
}

PoolBounds StepRouter::Unbounded() const {
  const std::vector<int64_t> experts(num_experts(), kNoBound), devices(num_devices(), kNoBound);
  return {.expert_places = experts,
          .floors = std::vector<int64_t>(num_experts()),
          .device_budgets = devices,
          .expert_rows = experts,
          .device_rows = devices};
}

// What is placed holds memory that later domains do without (R11).
void StepRouter::Hold(const std::vector<int32_t>& rows) {
  for (const int32_t row : rows) {
    Held& held = held_[RankOf(row)];
    held.expert_rows.resize(num_experts());
    held.device_rows.resize(num_devices());
    for (int32_t id = decision_.pair_begin[row]; id < decision_.pair_begin[row + 1]; ++id) {
      const PairDecision& pair = decision_.pairs[id];
      if (pair.device < 0) continue;
      ++held.expert_rows[pair.expert];
      ++held.device_rows[pair.device];
    }
  }
}

// R18: no bound, but for what falls below a threshold of its own. One pool for the copies.
void StepRouter::RouteExactAndThreshold() {
  std::vector<int32_t> rows;
  std::vector<Contender> contenders;
  for (int row = 0; row < num_rows(); ++row) {
    const TokenMode mode = step_.tokens[row].mode;
    if (Routed(row) && (mode == TokenMode::kExact || mode == TokenMode::kThreshold)) {
      rows.push_back(row);
    }
  }
  for (const int32_t row : rows) {
    if (step_.tokens[row].mode == TokenMode::kExact) continue;
    for (int32_t id = decision_.pair_begin[row]; id < decision_.pair_begin[row + 1]; ++id) {
      PairDecision& pair = decision_.pairs[id];
      const float affinity = step_.scores.affinity[step_.scores.At(row, rank_idx_[id])];
      if (pair.slot > 0 && affinity < step_.policy.thresholds[pair.expert]) {
        pair.fate = PairFate::kDropped;
      }
    }
  }
  DomainRouter router(step_, Unbounded(), ContendersOf(rows, /*in_block=*/false), decision_);
  router.ChooseByExpert();
  router.Reweigh();
  Hold(rows);
}

// R18: every block of a request is a pool of its own, with the places of a full block.
void StepRouter::RouteBlocks() {
  std::map<std::tuple<int64_t, int64_t, bool>, std::vector<int32_t>> blocks;
  for (int row = 0; row < num_rows(); ++row) {
    const RoutedToken& token = step_.tokens[row];
    const bool causal = token.mode == TokenMode::kBlockCausal;
    if (!Routed(row) || (!causal && token.mode != TokenMode::kBlock)) continue;
    blocks[{token.request, token.position / step_.policy.block_tokens, causal}].push_back(row);
  }
  const CapacityPolicy& policy = step_.policy.capacity;
  PoolBounds bounds = Unbounded();
  bounds.in_block = true;
  if (policy.capacity.has_value()) {
    bounds.expert_places.assign(num_experts(), *policy.capacity);
  } else if (policy.factor.has_value()) {
    const double pairs = static_cast<double>(step_.policy.block_tokens) * step_.scores.top_k;
    bounds.expert_places.assign(num_experts(), CeilNear(*policy.factor * pairs / num_experts()));
  }
  for (const auto& [key, rows] : blocks) {
    decision_.block_bounds.push_back({.ceiling = bounds.expert_places[0],
                                      .floors = bounds.floors,
                                      .expert_places = bounds.expert_places,
                                      .device_budgets = bounds.device_budgets});
    DomainRouter router(step_, bounds, ContendersOf(rows, /*in_block=*/true), decision_);
    if (std::get<bool>(key)) {
      router.ChooseByPosition();
    } else {
      router.ChooseByExpert();
      router.Reroute();
      router.Cover();
    }
    router.Reweigh();
    Hold(rows);
  }
}

void StepRouter::RouteShared() {
  const auto shared = SharedRows();
  std::map<int32_t, DomainLoad> of_domain;
  for (const auto& [key, rows] : shared) {
    of_domain[key.first].num_tokens += static_cast<int64_t>(rows.size());
    of_domain[key.first].num_pairs += NumPairs(rows);
  }
  for (const auto& [key, rows] : shared) {
    const DomainLoad& whole = of_domain[key.first];
    const DomainLoad load{.num_tokens = static_cast<int64_t>(rows.size()),
                          .num_pairs = NumPairs(rows),
                          .switch_tokens = whole.num_tokens,
                          .switch_pairs = whole.num_pairs};
    decision_.bounds.push_back({.domain = key.first, .rank = key.second});
    RouteDomain(rows, load, decision_.bounds.back());
    Hold(rows);
  }
}

void StepRouter::RouteDomain(const std::vector<int32_t>& rows, const DomainLoad& load,
                             DomainBounds& domain) {
  const bool by_expert_choice = step_.policy.expert_choice.has_value();
  PoolBounds bounds = by_expert_choice ? Unbounded() : BoundsOf(rows, load, domain);
  domain.expert_places = bounds.expert_places;
  domain.floors = bounds.floors;
  domain.device_budgets = bounds.device_budgets;
  domain.device_pressure.assign(num_devices(), 0);
  domain.expert_pressure.resize(num_experts());
  DomainRouter router(step_, std::move(bounds), ContendersOf(rows, /*in_block=*/false), decision_);
  router.ChooseByExpert();
  if (by_expert_choice) return;
  router.TrimDevices(domain.device_pressure);
  router.Reroute();
  router.Cover();
  router.Reweigh();
}

// R9 to R11.
PoolBounds StepRouter::BoundsOf(const std::vector<int32_t>& rows, const DomainLoad& load,
                                DomainBounds& domain) {
  CapacityPolicy policy = step_.policy.capacity;
  if (policy.rank_local) {  // R19
    policy.zeta.reset();
    policy.tile = 1;
  }
  domain.ceiling = ExpertCeiling(policy, load, num_experts());
  domain.expert_pressure.assign(num_experts(), 0);
  PoolBounds bounds = Unbounded();
  bounds.expert_rows = RowsLeft(step_.limits.expert_rows, held_[domain.rank].expert_rows);
  bounds.device_rows = RowsLeft(step_.limits.device_rows, held_[domain.rank].device_rows);
  const std::vector<std::vector<float>> affinities = AffinitiesByExpert(rows);
  for (int e = 0; e < num_experts(); ++e) {
    const int64_t floor =
        ExpertFloor(policy, affinities[e], domain.ceiling, load.num_tokens, num_experts());
    bounds.floors[e] = floor;
    bounds.expert_places[e] = ExpertPlaces(policy, domain.ceiling, floor, bounds.expert_rows[e]);
    const auto num_pairs = static_cast<int64_t>(affinities[e].size());
    domain.expert_pressure[e] = std::min(floor, num_pairs) > bounds.expert_places[e];
  }
  bounds.device_budgets =
      DeviceBudgets(policy, step_.placement, load.num_pairs, bounds.device_rows);
  return bounds;
}

// Memory less what is held; ranks that count for themselves share it evenly (R19).
std::vector<int64_t> StepRouter::RowsLeft(const std::vector<int64_t>& limits,
                                          const std::vector<int64_t>& held) const {
  std::vector<int64_t> left = limits;
  for (size_t i = 0; i < left.size(); ++i) {
    if (left[i] == kNoBound) continue;
    if (step_.policy.capacity.rank_local) left[i] /= step_.num_ranks;
    if (!held.empty()) left[i] = std::max<int64_t>(0, left[i] - held[i]);
  }
  return left;
}

// [num_experts] affinities of the pairs of `rows`, descending.
std::vector<std::vector<float>> StepRouter::AffinitiesByExpert(
    const std::vector<int32_t>& rows) const {
  std::vector<std::vector<float>> affinities(num_experts());
  for (const int32_t row : rows) {
    for (int32_t id = decision_.pair_begin[row]; id < decision_.pair_begin[row + 1]; ++id) {
      affinities[decision_.pairs[id].expert].push_back(
          step_.scores.affinity[step_.scores.At(row, rank_idx_[id])]);
    }
  }
  if (step_.policy.capacity.affinity_mass.has_value()) {
    for (auto& of_expert : affinities) {
      std::sort(of_expert.begin(), of_expert.end(), std::greater<>());
    }
  }
  return affinities;
}

int64_t StepRouter::NumPairs(const std::vector<int32_t>& rows) const {
  int64_t count = 0;
  for (const int32_t row : rows) count += decision_.pair_begin[row + 1] - decision_.pair_begin[row];
  return count;
}

}  // namespace

absl::StatusOr<RouteDecision> RouteBounded(const RoutingStep& step) {
  for (const RoutedToken& token : step.tokens) {
    if (!token.padding) GATEHOUSE_RETURN_IF_ERROR(CheckToken(step, token));
  }
  return StepRouter(step).Run();
}

}  // namespace gatehouse
