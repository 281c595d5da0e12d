// Rules R12 to R16 of docs/routing.md on one pool: pairs that compete for the same places. One
// method a rule, called in their order. Lives for one decision and writes into the pairs it was
// given.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/moe/bounded_router.h"

namespace gatehouse {

// R8, the one order: the smaller key comes first wherever a rule says first, best, last or worst.
struct PairKey {
  int32_t tier = 0;
  double rank = 0;
  uint64_t tie_key = 0;
  int32_t expert = 0;
  friend bool operator<(const PairKey& a, const PairKey& b) {
    if (a.tier != b.tier) return a.tier < b.tier;
    if (a.rank != b.rank) return a.rank < b.rank;  // as numbers: -0 equals +0
    if (a.tie_key != b.tie_key) return a.tie_key < b.tie_key;
    return a.expert < b.expert;
  }
};

// The pair of `row` and the expert at place `rank_idx` of its ranking. `slot`: top_k for a rerouted
// pair. Ties within a block go by position, so that nothing outside the block decides.
struct RankedPair {
  int32_t row = 0;
  int32_t slot = 0;
  int32_t rank_idx = 0;
};
PairKey KeyOf(const RoutingStep& step, const RoutingPolicy& policy, const RankedPair& pair,
              bool in_block);

// The places of one pool. kNoBound: as many as wanted.
struct PoolBounds {
  std::vector<int64_t> expert_places;   // [num_experts] C
  std::vector<int64_t> floors;          // [num_experts] F
  std::vector<int64_t> device_budgets;  // [num_devices] B
  std::vector<int64_t> expert_rows;     // [num_experts] memory left, which no override exceeds
  std::vector<int64_t> device_rows;     // [num_devices]
  bool in_block = false;                // R18: placement decides nothing; ties go by position
};

class DomainRouter {
 public:
  struct Contender {
    int32_t id = 0;        // in decision.pairs
    int32_t rank_idx = 0;  // of the expert chosen
    PairKey key;           // of the expert that computes the pair now
    int64_t position = 0;  // 1, 2, ... in the chosen expert's order (R12)
  };
  // `contenders` are whole rows, ascending, their slots ascending.
  DomainRouter(const RoutingStep& step, const LayerPolicy& rules, PoolBounds bounds,
               std::vector<Contender> contenders, RouteDecision& decision);

  void ChooseByExpert();  // R12: every expert keeps its best; kept pairs go to copies
  // R13; adds to `device_pressure` [num_devices] the evictions below a floor.
  void TrimDevices(std::vector<int64_t>& device_pressure);
  void Reroute();  // R14: what was evicted finds another expert, or is dropped
  void Cover();    // R15: no token without an expert
  void Reweigh();  // R16
  // R18, causal: in the place of ChooseByExpert, Reroute and Cover.
  void ChooseByPosition();

 private:
  PairDecision& pair(int32_t c) { return decision_.pairs[contenders_[c].id]; }
  const PairDecision& pair(int32_t c) const { return decision_.pairs[contenders_[c].id]; }
  const RoutedToken& token(int32_t c) const { return step_.tokens[pair(c).row]; }
  bool Alive(int32_t c) const { return pair(c).fate != PairFate::kDropped; }
  int NumSurvivors(int32_t c) const;  // of the row of c
  // Rows of equal keys, which nobody should make, go in their order.
  bool Before(int32_t a, int32_t b) const {
    const PairKey &first = contenders_[a].key, &second = contenders_[b].key;
    return first < second || (!(second < first) && a < b);
  }

  void Evict(int32_t c);
  void SetDevice(int32_t c, int32_t copy);
  void PlaceKept(int32_t expert, std::span<const int32_t> kept);
  void PlaceAgain(std::span<std::vector<int32_t>> kept, std::span<const int32_t> moved);
  template <typename Allowed>
  std::optional<int32_t> FindCopy(int32_t expert, int32_t home, const Allowed& allowed) const;
  void RerouteOrDrop(int32_t c);
  bool TryReroute(int32_t c, int32_t rank_idx);
  void CoverRow(int32_t first);
  bool TakePlaceOfAnother(int32_t c);
  void Restore(int32_t c, int32_t copy);
  void ReweighRow(int32_t first, int32_t end);

  const RoutingStep& step_;
  const RoutingPolicy& policy_;
  const ExpertPlacement& placement_;
  const PoolBounds bounds_;
  RouteDecision& decision_;
  std::vector<Contender> contenders_;
  std::vector<int32_t> row_begin_;  // [num pool rows + 1] into contenders_
  std::vector<int32_t> evicted_;    // contenders
  // Pairs of this pool placed so far.
  std::vector<int64_t> expert_loads_;  // [num_experts]
  std::vector<int64_t> copy_loads_;    // [num_copies]
  std::vector<int64_t> device_loads_;  // [num_devices]
};

}  // namespace gatehouse
