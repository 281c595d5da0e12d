#include "engine/moe/domain_router.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace gatehouse {
void Reweigh(const RoutingPolicy& policy, std::span<PairDecision> row) {
  float before = 0, after = 0;
  bool whole = true;
  for (PairDecision& p : row) {
    before += p.chosen_weight;
    if (p.fate == PairFate::kDropped) p.weight = 0;
    after += p.weight;
    whole = whole && p.fate == PairFate::kKept;
  }
  if (whole || !policy.renormalise_after_drop || after == 0) return;
  const float factor = std::min(before / after, policy.max_renormalisation);
  for (PairDecision& p : row) p.weight *= factor;
}

DomainRouter::DomainRouter(const RoutingStep& step, const LayerPolicy& rules, PoolBounds bounds,
                           std::vector<Contender> contenders, RouteDecision& decision)
    : step_(step),
      policy_(*rules.policy),
      placement_(*rules.placement),
      bounds_(std::move(bounds)),
      decision_(decision),
      contenders_(std::move(contenders)),
      group_begin_(rules.placement->num_experts() + 1),
      group_sorted_(rules.placement->num_experts()),
      expert_loads_(rules.placement->num_experts()),
      copy_loads_(rules.placement->num_copies()),
      device_loads_(rules.placement->num_devices) {
  const auto end = static_cast<int32_t>(contenders_.size());
  for (int32_t c = 0; c < end; ++c) {
    if (c == 0 || pair(c).row != pair(c - 1).row) {
      row_begin_.push_back(c);
      num_survivors_.push_back(0);
    }
    contenders_[c].row = static_cast<int32_t>(row_begin_.size()) - 1;
    num_survivors_.back() += Alive(c) ? 1 : 0;
  }
  row_begin_.push_back(end);
}

std::span<PairDecision> DomainRouter::PairsOfRow(int32_t c) {
  const int32_t row = contenders_[c].row;
  return std::span(decision_.pairs)
      .subspan(contenders_[row_begin_[row]].id, row_begin_[row + 1] - row_begin_[row]);
}

// Contenders that `takes`, by chosen expert.
template <typename Takes>
void DomainRouter::GroupByExpert(const Takes& takes) {
  const auto end = static_cast<int32_t>(contenders_.size());
  for (int32_t c = 0; c < end; ++c) {
    if (takes(c)) ++group_begin_[pair(c).chosen_expert + 1];
  }
  std::partial_sum(group_begin_.begin(), group_begin_.end(), group_begin_.begin());
  group_.resize(group_begin_.back());
  std::vector<int32_t> next(group_begin_.begin(), group_begin_.end() - 1);
  for (int32_t c = 0; c < end; ++c) {
    if (takes(c)) group_[next[pair(c).chosen_expert]++] = c;
  }
}

// By the one order. Keys are laid side by side first: they are compared many times.
void DomainRouter::Sort(std::span<int32_t> contenders) {
  sort_items_.clear();
  for (const int32_t c : contenders) sort_items_.push_back({contenders_[c].key, c});
  std::sort(sort_items_.begin(), sort_items_.end());
  for (size_t i = 0; i < contenders.size(); ++i) contenders[i] = sort_items_[i].contender;
}

void DomainRouter::SortGroup(int32_t expert) {
  if (group_sorted_[expert] != 0) return;
  group_sorted_[expert] = 1;
  const std::span<int32_t> group = GroupOf(expert);
  Sort(group);
  for (size_t i = 0; i < group.size(); ++i) {
    contenders_[group[i]].position = static_cast<int32_t>(i) + 1;
  }
}

void DomainRouter::MoveWorstToFront(std::span<int32_t> contenders, int64_t count) {
  if (count >= static_cast<int64_t>(contenders.size())) return;
  std::nth_element(contenders.begin(), contenders.begin() + count, contenders.end(),
                   [&](int32_t a, int32_t b) { return Before(b, a); });
}

// Out of its expert and device, if it has one. Until a rule says otherwise it is dropped.
void DomainRouter::Evict(int32_t c, EvictionCause cause) {
  PairDecision& evicted = pair(c);
  evicted.fate = PairFate::kDropped;
  evicted.cause = cause;
  --num_survivors_[contenders_[c].row];
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
  GroupByExpert([&](int32_t c) { return Alive(c); });  // others are below their threshold
  for (int32_t e = 0; e < placement_.num_experts(); ++e) {
    const std::span<int32_t> group = GroupOf(e);
    const int64_t num_kept = std::min(static_cast<int64_t>(group.size()), bounds_.expert_places[e]);
    const bool binds = num_kept < static_cast<int64_t>(group.size());
    if (binds || placement_.devices_of(e).size() > 1) SortGroup(e);
    for (const int32_t c : group.subspan(num_kept)) {
      Evict(c, EvictionCause::kExpert);
      evicted_.push_back(c);
    }
    expert_loads_[e] = num_kept;
    PlaceKept(e, group.first(num_kept));
  }
}

// R12, copies: at home up to an equal share, then the emptiest copy.
void DomainRouter::PlaceKept(int32_t expert, std::span<const int32_t> kept) {
  const int32_t begin = placement_.copy_begin[expert];
  const auto devices = placement_.devices_of(expert);
  if (devices.size() == 1) {
    for (const int32_t c : kept) SetDevice(c, begin);
    return;
  }
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
  for (int32_t d = 0; d < placement_.num_devices; ++d) {
    const int64_t excess = device_loads_[d] - bounds_.device_budgets[d];
    if (excess > 0) TrimDevice(d, excess, device_pressure[d]);
  }
}

// The worst beyond their expert's floor, then the worst of all.
void DomainRouter::TrimDevice(int32_t device, int64_t excess, int64_t& pressure) {
  std::vector<int32_t> beyond, within;
  for (int32_t e = 0; e < placement_.num_experts(); ++e) {
    const auto devices = placement_.devices_of(e);
    if (std::find(devices.begin(), devices.end(), device) == devices.end()) continue;
    if (bounds_.floors[e] > 0) SortGroup(e);
    for (const int32_t c : GroupOf(e)) {
      if (pair(c).device != device) continue;
      const bool counts = bounds_.floors[e] == 0 || contenders_[c].position > bounds_.floors[e];
      (counts ? beyond : within).push_back(c);
    }
  }
  const auto num_beyond = std::min(excess, static_cast<int64_t>(beyond.size()));
  const int64_t num_within = excess - num_beyond;
  MoveWorstToFront(beyond, num_beyond);
  MoveWorstToFront(within, num_within);
  beyond.resize(num_beyond);
  beyond.insert(beyond.end(), within.begin(), within.begin() + num_within);
  for (const int32_t c : beyond) Evict(c, EvictionCause::kDevice);
  evicted_.insert(evicted_.end(), beyond.begin(), beyond.end());
  pressure += num_within;
}

void DomainRouter::Reroute() {
  Sort(evicted_);
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
  if (expert_loads_[expert] >= bounds_.expert_places[expert]) return false;
  const double least = policy_.reroute_ratio * double{moved.chosen_gate} * (1 - 1e-6);
  if (!(double{scores.gate[at]} >= least)) return false;
  const std::span<const PairDecision> pairs_of_row = PairsOfRow(c);
  for (const PairDecision& other : pairs_of_row) {
    if (other.fate != PairFate::kDropped && other.expert == expert) return false;
  }
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
  rerouted_.push_back(c);
  ++num_survivors_[contenders_[c].row];
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
  for (int32_t r = 0; r < num_rows(); ++r) {
    if (num_survivors_[r] == 0) bare.push_back(row_begin_[r]);
  }
  Sort(bare);
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
  const auto consider = [&](int32_t other) {
    if (pair(other).expert != expert || !Alive(other)) return;
    if (num_survivors_[contenders_[other].row] < 2) return;
    if (worst < 0 || Before(worst, other)) worst = other;
  };
  for (const int32_t other : GroupOf(expert)) consider(other);
  for (const int32_t other : rerouted_) consider(other);
  if (worst < 0) return false;
  const int32_t device = pair(worst).device;
  Evict(worst, EvictionCause::kCoverage);
  const auto devices = placement_.devices_of(expert);
  const auto at = std::find(devices.begin(), devices.end(), device) - devices.begin();
  Restore(c, placement_.copy_begin[expert] + static_cast<int32_t>(at));
  return true;
}

void DomainRouter::Restore(int32_t c, int32_t copy) {
  pair(c).fate = PairFate::kKept;
  pair(c).cause = EvictionCause::kNone;
  ++num_survivors_[contenders_[c].row];
  ++expert_loads_[pair(c).expert];
  SetDevice(c, copy);
}

void DomainRouter::ChooseByPosition() {
  std::vector<int32_t> rows(num_rows());
  std::iota(rows.begin(), rows.end(), 0);
  const auto position = [&](int32_t r) { return token(row_begin_[r]).position; };
  std::sort(rows.begin(), rows.end(),
            [&](int32_t a, int32_t b) { return position(a) < position(b); });
  std::vector<int32_t> moved;  // rerouted pairs and overrides, in the order of the decisions
  for (const int32_t row : rows) ChooseByPosition(row, moved);
  PlaceAgain(moved);
}

void DomainRouter::ChooseByPosition(int32_t row, std::vector<int32_t>& moved) {
  const int32_t first = row_begin_[row];
  evicted_.clear();
  for (int32_t c = first; c < row_begin_[row + 1]; ++c) {
    const int32_t expert = pair(c).expert;
    if (expert_loads_[expert] < bounds_.expert_places[expert]) {
      ++expert_loads_[expert];
    } else {
      Evict(c, EvictionCause::kExpert);
      evicted_.push_back(c);
    }
  }
  Sort(evicted_);
  for (const int32_t c : evicted_) {
    RerouteOrDrop(c);
    if (Alive(c)) moved.push_back(c);
  }
  if (num_survivors_[row] > 0) return;
  decision_.overrides.push_back(contenders_[first].id);  // with or without R15, the rule says
  Restore(first, placement_.copy_begin[pair(first).expert]);
  moved.push_back(first);
}

// Copies decide nothing within a block, so they are given out when all is decided: kept pairs
// first, as everywhere.
void DomainRouter::PlaceAgain(std::span<const int32_t> moved) {
  std::fill(copy_loads_.begin(), copy_loads_.end(), 0);
  std::fill(device_loads_.begin(), device_loads_.end(), 0);

  std::vector<uint8_t> is_moved(contenders_.size());
  for (const int32_t c : moved) is_moved[c] = 1;
  GroupByExpert([&](int32_t c) { return Alive(c) && is_moved[c] == 0; });
  for (int32_t e = 0; e < placement_.num_experts(); ++e) {
    if (placement_.devices_of(e).size() > 1) SortGroup(e);
    PlaceKept(e, GroupOf(e));
  }
  for (const int32_t c : moved) {
    SetDevice(c, *FindCopy(pair(c).expert, token(c).home_device, [](int32_t) { return true; }));
  }
}

}  // namespace gatehouse
