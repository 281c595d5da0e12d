// Which devices hold which experts, and how fast they are. A value; devices are numbers, whether
// real or not.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace gatehouse {

struct ExpertPlacement {
  int num_devices = 1;
  // Expert e's copies are [copy_begin[e], copy_begin[e + 1]), at least one, on devices that ascend.
  std::vector<int32_t> copy_begin;    // [num_experts + 1]
  std::vector<int32_t> copy_devices;  // [num_copies]
  std::vector<double> throughput;     // [num_devices] experts' rows per second, in any unit; > 0

  int num_experts() const { return static_cast<int>(copy_begin.size()) - 1; }
  int num_copies() const { return static_cast<int>(copy_devices.size()); }
  std::span<const int32_t> devices_of(int expert) const {
    return std::span(copy_devices)
        .subspan(copy_begin[expert], copy_begin[expert + 1] - copy_begin[expert]);
  }
};

// `devices[e]`: those of expert e's copies, ascending. [num_experts][copies]
ExpertPlacement PlacementOf(const std::vector<std::vector<int32_t>>& devices,
                            std::vector<double> throughput);

// Expert e on device floor(e * num_devices / num_experts), all devices alike.
ExpertPlacement LinearPlacement(int num_experts, int num_devices);
// Expert e on device e mod num_devices, all devices alike: neighbours, which are often wanted
// together, part.
ExpertPlacement RoundRobinPlacement(int num_experts, int num_devices);

// The same with only the devices of `members` (ascending, at least one): copies on others are gone,
// and an expert that had none elsewhere goes to the member that then has the fewest, the lowest
// first. Devices keep their numbers.
ExpertPlacement PlacementAmong(const ExpertPlacement& placement, std::span<const int> members);

// The busiest device's load by its throughput over the mean of all devices; 1 without any load.
// `loads` [num_experts], in any unit; copies of an expert share its load evenly, as rule R12 of
// docs/routing.md does.
double PredictedImbalance(const ExpertPlacement& placement, std::span<const double> loads);

}  // namespace gatehouse
