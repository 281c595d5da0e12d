// DeepSeek's expert load balancer (EPLB) for one layer: experts that are wanted most get copies,
// and copies are packed so that no device has much more to do than another. Pure functions; any
// thread.
//
//   loads                   90 132 40 | 61 104 165 | 39 4 73 | 56 183 86   four groups of experts
//   1. groups to nodes      node 0: groups 1 and 2, node 1: groups 3 and 0
//   2. copies within nodes  node 0: experts 5 and 4 twice, node 1: experts 10 and 1 twice
//   3. copies to devices    5 6 | 5 7 | 8 4 | 3 4    10 9 | 10 2 | 0 1 | 11 1
//
// More general than the original in three things: devices differ in throughput and in slots, counts
// need not divide, and no device gets two copies of one expert (the second would share no load).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/moe/expert_placement.h"

namespace gatehouse {

struct PlacementProblem {
  std::vector<double> loads;       // [num_experts] pairs expected, in any unit
  std::vector<double> throughput;  // [num_devices] as in ExpertPlacement
  std::vector<int32_t> slots;      // [num_devices] experts that its memory holds
  // The node of each device: within one, exchange is fast. Empty: all in one.
  std::vector<int32_t> nodes;  // [num_devices]
  // Neighbouring experts of which a row asks few groups (rule R6): a group stays on one node where
  // the nodes divide the groups and have the slots for it, else nodes count for nothing.
  int num_groups = 1;
  int num_replicas = 0;  // copies beyond the first of each expert, in all
};

// Every expert at least once, `num_replicas` copies more, no device beyond its slots. Ties go to
// the lower expert and device.
// INVALID_ARGUMENT, with what was given and what could be, for what cannot be placed.
absl::StatusOr<ExpertPlacement> EplbPlacement(const PlacementProblem& problem);

}  // namespace gatehouse
