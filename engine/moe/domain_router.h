// Rules R12 to R15 of docs/routing.md on one pool: pairs that compete for the same places. One
// method a rule, called in their order. Lives for one decision and writes into the pairs it was
// given.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/moe/bounded_router.h"
#include "engine/moe/pair_key.h"

namespace gatehouse {

// R16, of the pairs of one row.
void Reweigh(const RoutingPolicy& policy, std::span<PairDecision> row);

// The places of one pool. kNoBound: as many as wanted.
struct PoolBounds {
  std::vector<int64_t> expert_places;   // [num_experts] C
  std::vector<int64_t> floors;          // [num_experts] F
  std::vector<int64_t> device_budgets;  // [num_devices] B
  std::vector<int64_t> expert_rows;     // [num_experts] memory left, which no override exceeds
  std::vector<int64_t> device_rows;     // [num_devices]
  bool in_block = false;                // R18: placement decides nothing; ties go by position
};

// Pairs stand in groups by the expert they chose, in one flat array. A group is sorted only where a
// rule asks for its order: without a bound that binds, none is.
class DomainRouter {
 public:
  struct Contender {
    int32_t id = 0;  // in decision.pairs
    PairKey key;     // of the expert that computes the pair now
    // Set by the router:
    int32_t row = 0;       // among those of the pool, ascending
    int32_t position = 0;  // 1, 2, ... in the chosen expert's order (R12), once that is sorted
  };
  // `contenders` are whole rows, ascending, their slots ascending.
  DomainRouter(const RoutingStep& step, const LayerPolicy& rules, PoolBounds bounds,
               std::vector<Contender> contenders, RouteDecision& decision);

  void ChooseByExpert();  // R12: every expert keeps its best; kept pairs go to copies
  // R13; adds to `device_pressure` [num_devices] the evictions below a floor.
  void TrimDevices(std::vector<int64_t>& device_pressure);
  void Reroute();  // R14: what was evicted finds another expert, or is dropped
  void Cover();    // R15: no token without an expert
  const std::vector<int64_t>& device_loads() const { return device_loads_; }  // pairs placed
  // R18, causal: in the place of ChooseByExpert, Reroute and Cover.
  void ChooseByPosition();

 private:
  struct SortItem {
    PairKey key;
    int32_t contender = 0;
    // Rows of equal keys, which nobody should make, go in their order.
    friend bool operator<(const SortItem& a, const SortItem& b) {
      return a.key < b.key || (!(b.key < a.key) && a.contender < b.contender);
    }
  };
  PairDecision& pair(int32_t c) { return decision_.pairs[contenders_[c].id]; }
  const PairDecision& pair(int32_t c) const { return decision_.pairs[contenders_[c].id]; }
  const RoutedToken& token(int32_t c) const { return step_.tokens[pair(c).row]; }
  bool Alive(int32_t c) const { return pair(c).fate != PairFate::kDropped; }
  int num_rows() const { return static_cast<int>(row_begin_.size()) - 1; }
  std::span<PairDecision> PairsOfRow(int32_t c);  // of the row of c
  std::span<int32_t> GroupOf(int32_t expert) {
    return std::span(group_).subspan(group_begin_[expert],
                                     group_begin_[expert + 1] - group_begin_[expert]);
  }
  bool Before(int32_t a, int32_t b) const {
    return SortItem{contenders_[a].key, a} < SortItem{contenders_[b].key, b};
  }

  template <typename Takes>
  void GroupByExpert(const Takes& takes);
  void Sort(std::span<int32_t> contenders);
  void SortGroup(int32_t expert);
  void MoveWorstToFront(std::span<int32_t> contenders, int64_t count);
  void Evict(int32_t c, EvictionCause cause);
  void SetDevice(int32_t c, int32_t copy);
  void PlaceKept(int32_t expert, std::span<const int32_t> kept);
  void TrimDevice(int32_t device, int64_t excess, int64_t& pressure);
  template <typename Allowed>
  std::optional<int32_t> FindCopy(int32_t expert, int32_t home, const Allowed& allowed) const;
  void RerouteOrDrop(int32_t c);
  bool TryReroute(int32_t c, int32_t rank_idx);
  void CoverRow(int32_t first);
  bool TakePlaceOfAnother(int32_t c);
  void Restore(int32_t c, int32_t copy);
  void ChooseByPosition(int32_t row, std::vector<int32_t>& moved);
  void PlaceAgain(std::span<const int32_t> moved);

  const RoutingStep& step_;
  const RoutingPolicy& policy_;
  const ExpertPlacement& placement_;
  const PoolBounds bounds_;
  RouteDecision& decision_;
  std::vector<Contender> contenders_;
  std::vector<int32_t> row_begin_;      // [num pool rows + 1] into contenders_
  std::vector<int32_t> num_survivors_;  // [num pool rows]
  std::vector<int32_t> group_;          // contenders by chosen expert
  std::vector<int32_t> group_begin_;    // [num_experts + 1]
  std::vector<uint8_t> group_sorted_;   // [num_experts]
  std::vector<int32_t> evicted_;        // contenders
  std::vector<int32_t> rerouted_;       // likewise
  std::vector<SortItem> sort_items_;    // of one call to Sort
  // Pairs of this pool placed so far.
  std::vector<int64_t> expert_loads_;  // [num_experts]
  std::vector<int64_t> copy_loads_;    // [num_copies]
  std::vector<int64_t> device_loads_;  // [num_devices]
};

}  // namespace gatehouse
