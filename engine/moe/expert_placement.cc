#include "engine/moe/expert_placement.h"

namespace gatehouse {

ExpertPlacement LinearPlacement(int num_experts, int num_devices) {
  ExpertPlacement placement{.num_devices = num_devices,
                            .copy_begin = {0},
                            .throughput = std::vector<double>(num_devices, 1)};
  for (int64_t e = 0; e < num_experts; ++e) {
    placement.copy_devices.push_back(static_cast<int32_t>(e * num_devices / num_experts));
    placement.copy_begin.push_back(static_cast<int32_t>(e) + 1);
  }
  return placement;
}

}  // namespace gatehouse
