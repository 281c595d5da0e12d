#include "engine/moe/domain_router.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace gatehouse {

PairKey KeyOf(const RoutingStep& step, const RoutingPolicy& policy, const RankedPair& pair,
              bool in_block) {
  const GateScores& scores = step.scores;
  const int64_t at = scores.At(pair.row, pair.rank_idx);
  const RoutedToken& token = step.tokens[pair.row];
  PairKey key{.tie_key = in_block ? static_cast<uint64_t>(token.position) : token.tie_key,
              .expert = scores.ranked_ids[at]};
  switch (policy.order) {
    case PairOrder::kScore:
      key.rank = -static_cast<double>(scores.affinity[at]);
      break;
    case PairOrder::kArrival:
      key.rank = pair.row;
      break;
    case PairOrder::kReverse:
      key.rank = -static_cast<double>(pair.row);
      break;
    case PairOrder::kRandom:
      break;
  }
  switch (policy.tier) {
    case PairTier::kOff:
      break;
    case PairTier::kFirst:
      key.tier = pair.slot == 0 ? 0 : 1;
      break;
    case PairTier::kRank:
      key.tier = pair.slot;
      break;
  }
  return key;
}

DomainRouter::DomainRouter(const RoutingStep& step, const LayerPolicy& rules, PoolBounds bounds,
                           std::vector<Contender> contenders, RouteDecision& decision)
    : step_(step),
      policy_(*rules.policy),
      placement_(*rules.placement),
      bounds_(std::move(bounds)),
      decision_(decision),
      contenders_(std::move(contenders)),
      expert_loads_(rules.placement->num_experts()),
      copy_loads_(rules.placement->num_copies()),
      device_loads_(rules.placement->num_devices) {
  for (int32_t c = 0; c < static_cast<int32_t>(contenders_.size()); ++c) {
    if (c == 0 || pair(c).row != pair(c - 1).row) row_begin_.push_back(c);
  }
  row_begin_.push_back(static_cast<int32_t>(contenders_.size()));
}

int DomainRouter::NumSurvivors(int32_t c) const {
  const int32_t row = pair(c).row;
  const auto* begin = decision_.pairs.data() + decision_.pair_begin[row];
  const auto* end = decision_.pairs.data() + decision_.pair_begin[row + 1];
  return static_cast<int>(
      std::count_if(begin, end, [](const auto& p) { return p.fate != PairFate::kDropped; }));
}

// Out of its expert and device, if it has one. Until a rule says otherwise it is dropped.
void DomainRouter::Evict(int32_t c) {
  PairDecision& evicted = pair(c);
  evicted.fate = PairFate::kDropped;
  if (evicted.device < 0) return;
  --expert_loads_[evicted.expert];
  --device_loads_[evicted.device];
  const auto devices = placement_.devices_of(evicted.expert);
  const auto at = std::find(devices.begin(), devices.end(), evicted.device) - devices.begin();
  --copy_loads_[placement_.copy_begin[evicted.expert] + at];
  evicted.device = -1;
}

void DomainRouter::SetDevice(int32_t c, int32_t copy) {
  pair(c).device = placement_.copy_devices[copy];
  ++copy_loads_[copy];
  ++device_loads_[pair(c).device];
}

void DomainRouter::ChooseByExpert() {
  const int n = placement_.num_experts();
  std::vector<int32_t> order(contenders_.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return Before(a, b); });
  std::vector<std::vector<int32_t>> kept(n);
  std::vector<int64_t> num_pairs(n);
  for (const int32_t c : order) {
    if (!Alive(c)) continue;  // below its threshold
    const int32_t expert = pair(c).expert;
    contenders_[c].position = ++num_pairs[expert];
    if (num_pairs[expert] <= bounds_.expert_places[expert]) {
      kept[expert].push_back(c);
    } else {
      Evict(c);
      evicted_.push_back(c);
    }
  }
  for (int e = 0; e < n; ++e) {
    expert_loads_[e] = static_cast<int64_t>(kept[e].size());
    PlaceKept(e, kept[e]);
  }
}

// R12, copies: at home up to an equal share, then the emptiest copy.
void DomainRouter::PlaceKept(int32_t expert, std::span<const int32_t> kept) {
  const int32_t begin = placement_.copy_begin[expert];
  const auto devices = placement_.devices_of(expert);
  const auto num_copies = static_cast<int64_t>(devices.size());
  const int64_t share = (static_cast<int64_t>(kept.size()) + num_copies - 1) / num_copies;
  std::vector<int32_t> away;
  for (const int32_t c : kept) {
    const auto home = std::find(devices.begin(), devices.end(), token(c).home_device);
    const auto copy = begin + static_cast<int32_t>(home - devices.begin());
    if (home == devices.end() || copy_loads_[copy] >= share) {
      away.push_back(c);
    } else {
      SetDevice(c, copy);
    }
  }
  for (const int32_t c : away) {
    const auto loads = std::span(copy_loads_).subspan(begin, devices.size());
    const auto emptiest = std::min_element(loads.begin(), loads.end());
    SetDevice(c, begin + static_cast<int32_t>(emptiest - loads.begin()));
  }
}

void DomainRouter::TrimDevices(std::vector<int64_t>& device_pressure) {
  for (int d = 0; d < placement_.num_devices; ++d) {
    int64_t excess = device_loads_[d] - bounds_.device_budgets[d];
    if (excess <= 0) continue;
    std::vector<int32_t> there;
    for (int32_t c = 0; c < static_cast<int32_t>(contenders_.size()); ++c) {
      if (pair(c).device == d) there.push_back(c);
    }
    std::sort(there.begin(), there.end(), [&](int32_t a, int32_t b) { return Before(b, a); });
    for (const bool below_floor : {false, true}) {
      for (const int32_t c : there) {
        if (excess == 0) break;
        if (!Alive(c)) continue;
        if (!below_floor && contenders_[c].position <= bounds_.floors[pair(c).expert]) continue;
        device_pressure[d] += below_floor ? 1 : 0;
        Evict(c);
        evicted_.push_back(c);
        --excess;
      }
    }
  }
}

void DomainRouter::Reroute() {
  std::sort(evicted_.begin(), evicted_.end(), [&](int32_t a, int32_t b) { return Before(a, b); });
  for (const int32_t c : evicted_) RerouteOrDrop(c);
}

void DomainRouter::RerouteOrDrop(int32_t c) {
  decision_.evicted.push_back(contenders_[c].id);
  const int32_t row = pair(c).row;
  const int32_t first = step_.scores.num_chosen[row];
  const int32_t end = std::min<int32_t>(step_.scores.num_ranked, first + policy_.reroute);
  for (int32_t rank_idx = first; rank_idx < end; ++rank_idx) {
    if (step_.scores.ranked_ids[step_.scores.At(row, rank_idx)] < 0) return;
    if (TryReroute(c, rank_idx)) return;
  }
}

bool DomainRouter::TryReroute(int32_t c, int32_t rank_idx) {
  const GateScores& scores = step_.scores;
  PairDecision& moved = pair(c);
  const int64_t at = scores.At(moved.row, rank_idx);
  const int32_t expert = scores.ranked_ids[at];
  const auto pairs_of_row =
      std::span(decision_.pairs)
          .subspan(decision_.pair_begin[moved.row],
                   decision_.pair_begin[moved.row + 1] - decision_.pair_begin[moved.row]);
  for (const PairDecision& other : pairs_of_row) {
    if (other.fate != PairFate::kDropped && other.expert == expert) return false;
  }
  if (expert_loads_[expert] >= bounds_.expert_places[expert]) return false;
  const double least = policy_.reroute_ratio * double{moved.chosen_gate} * (1 - 1e-6);
  if (!(double{scores.gate[at]} >= least)) return false;
  const auto allowed = [&](int32_t device) {
    if (bounds_.in_block) return true;
    if (device_loads_[device] >= bounds_.device_budgets[device]) return false;
    return device == token(c).home_device ||
           std::any_of(pairs_of_row.begin(), pairs_of_row.end(), [&](const PairDecision& other) {
             return other.fate != PairFate::kDropped && other.device == device;
           });
  };
  const std::optional<int32_t> copy = FindCopy(expert, token(c).home_device, allowed);
  if (!copy.has_value()) return false;
  moved.fate = PairFate::kRerouted;
  moved.expert = expert;
  moved.gate = scores.gate[at];
  moved.weight = scores.weight[at];
  contenders_[c].key = KeyOf(step_, policy_, {moved.row, scores.top_k, rank_idx}, bounds_.in_block);
  ++expert_loads_[expert];
  SetDevice(c, *copy);
  return true;
}

template <typename Allowed>
std::optional<int32_t> DomainRouter::FindCopy(int32_t expert, int32_t home,
                                              const Allowed& allowed) const {
  std::optional<int32_t> best;
  for (int32_t copy = placement_.copy_begin[expert]; copy < placement_.copy_begin[expert + 1];
       ++copy) {
    const int32_t device = placement_.copy_devices[copy];
    if (!allowed(device)) continue;
    if (device == home) return copy;
    if (!best.has_value() || copy_loads_[copy] < copy_loads_[*best]) best = copy;
  }
  return best;
}

void DomainRouter::Cover() {
  std::vector<int32_t> bare;  // slot-0 contenders of rows without a survivor
  for (size_t r = 0; r + 1 < row_begin_.size(); ++r) {
    const int32_t first = row_begin_[r];
    if (NumSurvivors(first) == 0) bare.push_back(first);
  }
  std::sort(bare.begin(), bare.end(), [&](int32_t a, int32_t b) { return Before(a, b); });
  for (const int32_t c : bare) {
    if (policy_.coverage) CoverRow(c);
    if (!Alive(c)) decision_.bare_rows.push_back(pair(c).row);
  }
}

// Gives its slot-0 pair back to a row: (a) a free place, (b) the place of the worst pair whose
// token keeps another, (c) a place beyond the bound if memory allows.
void DomainRouter::CoverRow(int32_t c) {
  const int32_t expert = pair(c).expert, home = token(c).home_device;
  const auto below = [&](const std::vector<int64_t>& bounds) {
    return [&](int32_t device) { return device_loads_[device] < bounds[device]; };
  };
  if (expert_loads_[expert] < bounds_.expert_places[expert]) {
    if (const auto copy = FindCopy(expert, home, below(bounds_.device_budgets))) {
      decision_.covered.push_back(contenders_[c].id);
      return Restore(c, *copy);
    }
  }
  if (TakePlaceOfAnother(c)) {
    decision_.covered.push_back(contenders_[c].id);
    return;
  }
  if (expert_loads_[expert] < bounds_.expert_rows[expert]) {
    if (const auto copy = FindCopy(expert, home, below(bounds_.device_rows))) {
      decision_.overrides.push_back(contenders_[c].id);
      Restore(c, *copy);
    }
  }
}

bool DomainRouter::TakePlaceOfAnother(int32_t c) {
  const int32_t expert = pair(c).expert;
  int32_t worst = -1;
  for (int32_t other = 0; other < static_cast<int32_t>(contenders_.size()); ++other) {
    if (!Alive(other) || pair(other).expert != expert) continue;
    if (worst >= 0 && Before(other, worst)) continue;
    if (NumSurvivors(other) >= 2) worst = other;
  }
  if (worst < 0) return false;
  const int32_t device = pair(worst).device;
  Evict(worst);
  const auto devices = placement_.devices_of(expert);
  const auto at = std::find(devices.begin(), devices.end(), device) - devices.begin();
  Restore(c, placement_.copy_begin[expert] + static_cast<int32_t>(at));
  return true;
}

void DomainRouter::Restore(int32_t c, int32_t copy) {
  pair(c).fate = PairFate::kKept;
  ++expert_loads_[pair(c).expert];
  SetDevice(c, copy);
}

void DomainRouter::ChooseByPosition() {
  std::vector<int32_t> firsts(row_begin_.begin(), row_begin_.end() - 1);
  std::sort(firsts.begin(), firsts.end(),
            [&](int32_t a, int32_t b) { return token(a).position < token(b).position; });
  std::vector<std::vector<int32_t>> kept(placement_.num_experts());
  std::vector<int32_t> moved;  // rerouted pairs and overrides, in the order of the decisions
  for (const int32_t first : firsts) {
    const int32_t end = *std::upper_bound(row_begin_.begin(), row_begin_.end(), first);
    std::vector<int32_t> evicted;
    for (int32_t c = first; c < end; ++c) {
      const int32_t expert = pair(c).expert;
      if (expert_loads_[expert] < bounds_.expert_places[expert]) {
        ++expert_loads_[expert];
        kept[expert].push_back(c);
      } else {
        Evict(c);
        evicted.push_back(c);
      }
    }
    std::sort(evicted.begin(), evicted.end(), [&](int32_t a, int32_t b) { return Before(a, b); });
    for (const int32_t c : evicted) {
      RerouteOrDrop(c);
      if (Alive(c)) moved.push_back(c);
    }
    if (NumSurvivors(first) > 0) continue;
    if (policy_.coverage) {
      decision_.overrides.push_back(contenders_[first].id);
      Restore(first, placement_.copy_begin[pair(first).expert]);
      moved.push_back(first);
    } else {
      decision_.bare_rows.push_back(pair(first).row);
    }
  }
  PlaceAgain(kept, moved);
}

// Copies decide nothing within a block, so they are given out when all is decided: kept pairs
// first, as everywhere.
void DomainRouter::PlaceAgain(std::span<std::vector<int32_t>> kept,
                              std::span<const int32_t> moved) {
  std::fill(copy_loads_.begin(), copy_loads_.end(), 0);
  std::fill(device_loads_.begin(), device_loads_.end(), 0);
  for (size_t e = 0; e < kept.size(); ++e) {
    std::sort(kept[e].begin(), kept[e].end(), [&](int32_t a, int32_t b) { return Before(a, b); });
    PlaceKept(static_cast<int32_t>(e), kept[e]);
  }
  for (const int32_t c : moved) {
    SetDevice(c, *FindCopy(pair(c).expert, token(c).home_device, [](int32_t) { return true; }));
  }
}

void DomainRouter::Reweigh() {
  for (size_t r = 0; r + 1 < row_begin_.size(); ++r) ReweighRow(row_begin_[r], row_begin_[r + 1]);
}

void DomainRouter::ReweighRow(int32_t first, int32_t end) {
  float before = 0, after = 0;
  bool whole = true;
  for (int32_t c = first; c < end; ++c) {
    const PairDecision& p = pair(c);
    before += step_.scores.weight[step_.scores.At(p.row, contenders_[c].rank_idx)];
    if (Alive(c)) after += p.weight;
    whole = whole && p.fate == PairFate::kKept;
  }
  const bool scales = !whole && policy_.renormalise_after_drop && after != 0;
  const float factor = scales ? std::min(before / after, policy_.max_renormalisation) : 1;
  for (int32_t c = first; c < end; ++c) {
    if (!Alive(c)) {
      pair(c).weight = 0;
    } else if (factor != 1) {
      pair(c).weight *= factor;
    }
  }
}

}  // namespace gatehouse
