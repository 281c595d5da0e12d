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

// Expert e on device floor(e * num_devices / num_experts), all devices alike.
ExpertPlacement LinearPlacement(int num_experts, int num_devices);

}  // namespace gatehouse
