#include "engine/moe/expert_placement.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/base/check.h"

namespace gatehouse {

ExpertPlacement PlacementOf(const std::vector<std::vector<int32_t>>& devices,
                            std::vector<double> throughput) {
  ExpertPlacement placement{.num_devices = static_cast<int>(throughput.size()), .copy_begin = {0}};
  placement.throughput = std::move(throughput);
  for (const std::vector<int32_t>& copies : devices) {
    placement.copy_devices.insert(placement.copy_devices.end(), copies.begin(), copies.end());
    placement.copy_begin.push_back(placement.num_copies());
  }
  return placement;
}

ExpertPlacement LinearPlacement(int num_experts, int num_devices) {
  std::vector<std::vector<int32_t>> devices(num_experts);
  for (int64_t e = 0; e < num_experts; ++e) {
    devices[e] = {static_cast<int32_t>(e * num_devices / num_experts)};
  }
  return PlacementOf(devices, std::vector<double>(num_devices, 1));
}

ExpertPlacement RoundRobinPlacement(int num_experts, int num_devices) {
  std::vector<std::vector<int32_t>> devices(num_experts);
  for (int e = 0; e < num_experts; ++e) devices[e] = {e % num_devices};
  return PlacementOf(devices, std::vector<double>(num_devices, 1));
}

ExpertPlacement PlacementAmong(const ExpertPlacement& placement, std::span<const int> members) {
  GATEHOUSE_CHECK(!members.empty());
  std::vector<std::vector<int32_t>> devices(placement.num_experts());
  std::vector<int> num_held(placement.num_devices, 0);
  for (int e = 0; e < placement.num_experts(); ++e) {
    for (const int32_t d : placement.devices_of(e)) {
      if (!std::binary_search(members.begin(), members.end(), d)) continue;
      devices[e].push_back(d);
      ++num_held[d];
    }
  }
  for (auto& copies : devices) {
    if (!copies.empty()) continue;
    copies.push_back(*std::min_element(members.begin(), members.end(),
                                       [&](int a, int b) { return num_held[a] < num_held[b]; }));
    ++num_held[copies.front()];
  }
  return PlacementOf(devices, placement.throughput);
}

double PredictedImbalance(const ExpertPlacement& placement, std::span<const double> loads) {
  GATEHOUSE_CHECK(static_cast<int>(loads.size()) == placement.num_experts());
  std::vector<double> device_loads(placement.num_devices, 0);
  for (int e = 0; e < placement.num_experts(); ++e) {
    const auto devices = placement.devices_of(e);
    for (const int32_t d : devices)
      device_loads[d] += loads[e] / static_cast<double>(devices.size());
  }
  double slowest = 0;
  for (int d = 0; d < placement.num_devices; ++d) {
    slowest = std::max(slowest, device_loads[d] / placement.throughput[d]);
  }
  const double load = std::accumulate(device_loads.begin(), device_loads.end(), 0.0);
  const double throughput =
      std::accumulate(placement.throughput.begin(), placement.throughput.end(), 0.0);
  return load > 0 ? slowest * throughput / load : 1;
}

}  // namespace gatehouse
