#include "engine/moe/placement_change.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "kernels/base/check.h"

namespace gatehouse {
namespace {

bool Holds(const ExpertPlacement& placement, int expert, int32_t device) {
  const auto devices = placement.devices_of(expert);
  return std::binary_search(devices.begin(), devices.end(), device);
}

bool Alike(const PlacementProblem& problem, int32_t a, int32_t b) {
  return problem.throughput[a] == problem.throughput[b] && problem.slots[a] == problem.slots[b] &&
         (problem.nodes.empty() || problem.nodes[a] == problem.nodes[b]);
}

}  // namespace

PlacementChange MovesBetween(const ExpertPlacement& from, const ExpertPlacement& to) {
  GATEHOUSE_CHECK(from.num_experts() == to.num_experts());
  PlacementChange change;
  std::vector<int32_t> num_sent(from.num_devices, 0);
  for (int e = 0; e < to.num_experts(); ++e) {
    const auto holders = from.devices_of(e);
    for (const int32_t device : to.devices_of(e)) {
      if (Holds(from, e, device)) continue;
      const int32_t sender =
          *std::min_element(holders.begin(), holders.end(),
                            [&](int32_t a, int32_t b) { return num_sent[a] < num_sent[b]; });
      ++num_sent[sender];
      change.copies.push_back({.expert = e, .from_device = sender, .to_device = device});
    }
    for (const int32_t device : holders) {
      if (!Holds(to, e, device)) change.drops.push_back({.expert = e, .device = device});
    }
  }
  return change;
}

ExpertPlacement KeepInPlace(const PlacementProblem& problem, const ExpertPlacement& current,
                            const ExpertPlacement& next) {
  GATEHOUSE_CHECK(current.num_experts() == next.num_experts());
  const int32_t num_devices = next.num_devices;
  std::map<std::pair<int32_t, int32_t>, int32_t> kept;  // by device in next, then in current
  for (int e = 0; e < next.num_experts(); ++e) {
    for (const int32_t old_device : current.devices_of(e)) {
      if (old_device >= num_devices) continue;  // it is gone
      for (const int32_t device : next.devices_of(e)) {
        if (Alike(problem, device, old_device)) ++kept[{device, old_device}];
      }
    }
  }
  std::vector<std::tuple<int32_t, int32_t, int32_t>> best;  // most kept first, then lowest devices
  best.reserve(kept.size());
  for (const auto& [devices, count] : kept) {
    best.emplace_back(-count, devices.first, devices.second);
  }
  std::sort(best.begin(), best.end());
  std::vector<int32_t> device_to_new(num_devices, -1);
  std::vector<uint8_t> taken(num_devices, 0);
  const auto take = [&](int32_t device, int32_t as) {
    if (device_to_new[device] >= 0 || taken[as] != 0) return;
    device_to_new[device] = as;
    taken[as] = 1;
  };
  for (const auto& [count, device, as] : best) take(device, as);
  for (int32_t device = 0; device < num_devices; ++device) {
    for (int32_t as = 0; as < num_devices; ++as) {
      if (Alike(problem, device, as)) take(device, as);
    }
  }
  std::vector<std::vector<int32_t>> devices(next.num_experts());
  for (int e = 0; e < next.num_experts(); ++e) {
    for (const int32_t device : next.devices_of(e)) devices[e].push_back(device_to_new[device]);
    std::sort(devices[e].begin(), devices[e].end());
  }
  return PlacementOf(devices, next.throughput);
}

}  // namespace gatehouse
