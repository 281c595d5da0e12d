#include "engine/moe/eplb.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "absl/strings/str_format.h"
#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

constexpr double kMaxLoad = 1LL << 53;  // whole numbers are exact up to here

// Things to pack into bins, a number of copies of each.
struct PackProblem {
  std::vector<double> weights;     // [num_things] of all copies together
  std::vector<int32_t> counts;     // [num_things] copies
  std::vector<double> throughput;  // [num_bins]
  std::vector<int32_t> slots;      // [num_bins]
};

// Whether bins with those slots can hold that many copies of each thing, never two of one in a bin:
// the theorem of Gale and Ryser.
bool Fit(std::vector<int32_t> counts, const std::vector<int32_t>& slots) {
  std::sort(counts.begin(), counts.end(), std::greater<>());
  const int32_t most_slots = slots.empty() ? 0 : *std::max_element(slots.begin(), slots.end());
  int64_t wanted = 0;
  for (size_t k = 0; k < counts.size(); ++k) {
    wanted += counts[k];
    // Beyond the widest bin what can be held grows no more: the last sum decides.
    if (static_cast<int64_t>(k) >= most_slots && k + 1 < counts.size()) continue;
    int64_t held = 0;
    for (const int32_t s : slots) held += std::min<int64_t>(s, static_cast<int64_t>(k) + 1);
    if (wanted > held) return false;
  }
  return true;
}

// Heaviest first, each to the bin that would be done with it first. The counts fit.
class Packing {
 public:
  explicit Packing(const PackProblem& problem)
      : problem_(problem), loads_(problem.slots.size(), 0), things_(problem.slots.size()) {
    std::vector<int32_t> order(problem.weights.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return Weight(a) > Weight(b); });
    for (const int32_t thing : order) {
      for (int32_t copy = 0; copy < problem.counts[thing]; ++copy) Place(thing);
    }
  }

  // [num_things] ascending.
  std::vector<std::vector<int32_t>> bins() const {
    std::vector<std::vector<int32_t>> bins(problem_.weights.size());
    for (int32_t bin = 0; bin < num_bins(); ++bin) {
      for (const int32_t thing : things_[bin]) bins[thing].push_back(bin);
    }
    return bins;
  }

 private:
  int32_t num_bins() const { return static_cast<int32_t>(things_.size()); }
  double Weight(int32_t thing) const { return problem_.weights[thing] / problem_.counts[thing]; }
  bool Holds(int32_t bin, int32_t thing) const { return things_[bin].count(thing) > 0; }
  int64_t NumFree(int32_t bin) const {
    return problem_.slots[bin] - static_cast<int64_t>(things_[bin].size());
  }
  void Put(int32_t thing, int32_t bin) {
    things_[bin].insert(thing);
    loads_[bin] += Weight(thing);
  }
  void Take(int32_t thing, int32_t bin) {
    things_[bin].erase(thing);
    loads_[bin] -= Weight(thing);
  }

  void Place(int32_t thing) {
    const auto done = [&](int32_t bin) {
      return (loads_[bin] + Weight(thing)) / problem_.throughput[bin];
    };
    int32_t best = -1;
    for (int32_t bin = 0; bin < num_bins(); ++bin) {
      if (NumFree(bin) <= 0 || Holds(bin, thing)) continue;
      // Of two equal ones the emptier: experts that nobody wants shall not share one device.
      const bool better = best < 0 || done(bin) < done(best) ||
                          (done(bin) == done(best) && NumFree(bin) > NumFree(best));
      if (better) best = bin;
    }
    if (best >= 0) return Put(thing, best);
    MakeRoom(thing);
  }

  // All bins with room hold the thing already. An augmenting path: a bin without it gives one of
  // its things to a bin without that, and so on to a bin with room; since the counts fit, there is
  // one.
  void MakeRoom(int32_t thing) {
    struct Step {
      int32_t from_bin = -1, moved = -1;
      bool seen = false;
    };
    std::vector<Step> steps(num_bins());
    std::vector<int32_t> queue;
    for (int32_t bin = 0; bin < num_bins(); ++bin) {
      if (Holds(bin, thing)) continue;
      steps[bin].seen = true;
      queue.push_back(bin);
    }
    for (size_t i = 0; i < queue.size(); ++i) {
      int32_t bin = queue[i];
      if (NumFree(bin) > 0) {
        for (; steps[bin].from_bin >= 0; bin = steps[bin].from_bin) {
          Take(steps[bin].moved, steps[bin].from_bin);
          Put(steps[bin].moved, bin);
        }
        return Put(thing, bin);
      }
      for (const int32_t moved : things_[bin]) {
        for (int32_t to = 0; to < num_bins(); ++to) {
          if (steps[to].seen || Holds(to, moved)) continue;
          steps[to] = {.from_bin = bin, .moved = moved, .seen = true};
          queue.push_back(to);
        }
      }
    }
    GATEHOUSE_CHECK(false);
  }

  const PackProblem& problem_;
  std::vector<double> loads_;              // [num_bins]
  std::vector<std::set<int32_t>> things_;  // [num_bins]
};

// A part of the problem that shares nothing with the others: a node's devices, or all.
struct Part {
  std::vector<int32_t> devices;  // ascending
  std::vector<int32_t> experts;  // ascending
};

absl::Status ValidateProblem(const PlacementProblem& problem) {
  const size_t num_experts = problem.loads.size(), num_devices = problem.throughput.size();
  if (num_experts == 0 || num_devices == 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "got %d experts on %d devices, expected at least one of each", num_experts, num_devices));
  }
  if (problem.slots.size() != num_devices ||
      (!problem.nodes.empty() && problem.nodes.size() != num_devices)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("slots and nodes: got %d and %d, expected one a device of %d",
                        problem.slots.size(), problem.nodes.size(), num_devices));
  }
  for (size_t e = 0; e < num_experts; ++e) {
    if (problem.loads[e] >= 0 && problem.loads[e] <= kMaxLoad) continue;
    return absl::InvalidArgumentError(absl::StrFormat("load of expert %d: got %g, expected 0 to %g",
                                                      e, problem.loads[e], kMaxLoad));
  }
  for (size_t d = 0; d < num_devices; ++d) {
    if (!(problem.throughput[d] > 0) || !std::isfinite(problem.throughput[d])) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "throughput of device %d: got %g, expected a number above 0", d, problem.throughput[d]));
    }
    if (problem.slots[d] < 0) {
      return absl::InvalidArgumentError(
          absl::StrFormat("slots of device %d: got %d, expected at least 0", d, problem.slots[d]));
    }
  }
  const auto total_slots = std::accumulate(problem.slots.begin(), problem.slots.end(), int64_t{0});
  if (total_slots < static_cast<int64_t>(num_experts)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("slots: got %d on %d devices, expected at least %d, one for each expert",
                        total_slots, num_devices, num_experts));
  }
  if (problem.num_groups < 1 || num_experts % problem.num_groups != 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "groups: got %d, expected a divisor of %d experts", problem.num_groups, num_experts));
  }
  return absl::OkStatus();
}

// The devices of each node, nodes in the order of their numbers.
std::vector<Part> NodesOf(const PlacementProblem& problem) {
  const std::set<int32_t> numbers(problem.nodes.begin(), problem.nodes.end());
  std::vector<Part> nodes(std::max<size_t>(numbers.size(), 1));
  for (size_t d = 0; d < problem.throughput.size(); ++d) {
    const auto at = problem.nodes.empty() ? numbers.begin() : numbers.find(problem.nodes[d]);
    nodes[std::distance(numbers.begin(), at)].devices.push_back(static_cast<int32_t>(d));
  }
  return nodes;
}

// Step 1: the experts of each node. All on one where the groups do not go into the nodes evenly.
std::vector<Part> GroupsToNodes(const PlacementProblem& problem) {
  const auto num_experts = static_cast<int32_t>(problem.loads.size());
  const int32_t group_size = num_experts / problem.num_groups;
  GATEHOUSE_CHECK(group_size >= 1);
  Part all;
  all.devices.resize(problem.throughput.size());
  std::iota(all.devices.begin(), all.devices.end(), 0);
  all.experts.resize(num_experts);
  std::iota(all.experts.begin(), all.experts.end(), 0);
  std::vector<Part> nodes = NodesOf(problem);
  const auto num_nodes = static_cast<int>(nodes.size());
  if (num_nodes == 1 || problem.num_groups % num_nodes != 0) return {all};

  PackProblem pack;
  pack.counts.assign(problem.num_groups, 1);
  for (int32_t e = 0; e < num_experts; e += group_size) {
    const auto first = problem.loads.begin() + e;
    pack.weights.push_back(std::accumulate(first, first + group_size, 0.0));
  }
  for (const Part& node : nodes) {
    double throughput = 0;
    int64_t slots = 0;
    for (const int32_t d : node.devices) {
      throughput += problem.throughput[d];
      slots += problem.slots[d];
    }
    pack.throughput.push_back(throughput);
    pack.slots.push_back(
        static_cast<int32_t>(std::min<int64_t>(slots / group_size, problem.num_groups)));
  }
  // As many groups as the node's share of the throughput, so that equal nodes get equally many.
  const std::vector<int32_t> most = pack.slots;
  const double throughput = std::accumulate(pack.throughput.begin(), pack.throughput.end(), 0.0);
  for (int n = 0; n < num_nodes; ++n) {
    const double share = problem.num_groups * pack.throughput[n] / throughput;
    pack.slots[n] = std::min(most[n], static_cast<int32_t>(std::ceil(share - 1e-9)));
  }
  if (!Fit(pack.counts, pack.slots)) pack.slots = most;
  if (!Fit(pack.counts, pack.slots)) return {all};

  const std::vector<std::vector<int32_t>> group_nodes = Packing(pack).bins();
  for (int32_t e = 0; e < num_experts; ++e) {
    nodes[group_nodes[e / group_size].front()].experts.push_back(e);
  }
  return nodes;
}

template <typename T>
std::vector<T> Select(const std::vector<T>& from, const std::vector<int32_t>& ids) {
  std::vector<T> selected;
  selected.reserve(ids.size());
  for (const int32_t id : ids) selected.push_back(from[id]);
  return selected;
}

PackProblem PackProblemOf(const PlacementProblem& problem, const Part& part) {
  return {.weights = Select(problem.loads, part.experts),
          .counts = std::vector<int32_t>(part.experts.size(), 1),
          .throughput = Select(problem.throughput, part.devices),
          .slots = Select(problem.slots, part.devices)};
}

// Step 2: one copy after the other to the expert whose copies have most to do each, of those with
// fewest copies. INVALID_ARGUMENT where the slots run out.
absl::Status Replicate(int num_replicas, const std::vector<Part>& parts,
                       std::vector<PackProblem>& packs) {
  int64_t most = 0;
  for (const PackProblem& pack : packs) {
    const auto num_experts = static_cast<int64_t>(pack.weights.size());
    for (const int32_t s : pack.slots) most += std::min<int64_t>(s, num_experts);
    most -= num_experts;
  }
  if (num_replicas < 0 || num_replicas > most) {
    return absl::InvalidArgumentError(
        absl::StrFormat("replicas: got %d, expected 0 to %d in these slots", num_replicas, most));
  }
  struct Candidate {
    int32_t expert;
    PackProblem* pack;
    size_t at;  // in the pack
    int32_t& count() const { return pack->counts[at]; }
    double weight() const { return pack->weights[at] / pack->counts[at]; }
  };
  std::vector<Candidate> open;
  for (size_t p = 0; p < parts.size(); ++p) {
    for (size_t i = 0; i < parts[p].experts.size(); ++i) {
      open.push_back({parts[p].experts[i], &packs[p], i});
    }
  }
  const auto less = [](const Candidate& a, const Candidate& b) {
    if (a.weight() != b.weight()) return a.weight() < b.weight();
    return a.count() != b.count() ? a.count() > b.count() : a.expert > b.expert;
  };
  while (num_replicas > 0) {
    const auto next = std::max_element(open.begin(), open.end(), less);
    GATEHOUSE_CHECK(next != open.end());
    ++next->count();
    if (Fit(next->pack->counts, next->pack->slots)) {
      --num_replicas;
    } else {  // nor will it later, when there are more copies of others
      --next->count();
      open.erase(next);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ExpertPlacement> EplbPlacement(const PlacementProblem& problem) {
  GATEHOUSE_RETURN_IF_ERROR(ValidateProblem(problem));
  const std::vector<Part> parts = GroupsToNodes(problem);
  std::vector<PackProblem> packs;
  packs.reserve(parts.size());
  for (const Part& part : parts) packs.push_back(PackProblemOf(problem, part));
  GATEHOUSE_RETURN_IF_ERROR(Replicate(problem.num_replicas, parts, packs));
  std::vector<std::vector<int32_t>> devices(problem.loads.size());
  for (size_t p = 0; p < parts.size(); ++p) {
    const std::vector<std::vector<int32_t>> bins = Packing(packs[p]).bins();
    for (size_t e = 0; e < bins.size(); ++e) {
      devices[parts[p].experts[e]] = Select(parts[p].devices, bins[e]);
    }
  }
  return PlacementOf(devices, problem.throughput);
}

}  // namespace gatehouse
