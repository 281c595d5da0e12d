// Counts what routing did over layers and steps: drops, mass, loads, and how long the experts would
// take on the devices of a placement.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/moe/expert_placement.h"
#include "engine/moe/route_decision.h"
#include "engine/moe/step_routing.h"

namespace gatehouse {

// Sums over layers and steps, but where it says mean.
struct RouteTotals {
  RouteReport report;
  int64_t num_layers = 0;      // layers of all steps
  double max_load = 0;         // sum of: largest load of an expert over the mean of what was asked
  double max_device_load = 0;  // the same of devices, by throughput
  double expert_time = 0;      // sum of the slowest device's rows / v_d
  double balanced_time = 0;    // the same of what was asked, spread evenly by v_d

  void Add(const RouteTotals& other);
  double drop_share() const;
  double gate_mass_kept() const;
  double mean_max_load() const;
  double mean_max_device_load() const;
  // Of the experts' part of a step: 1 where all devices are busy all the time and nothing is
  // dropped.
  double step_time() const;
};

class RouteMeter final : public RouteObserver {
 public:
  // The device model: a placement for each MoE layer, or one for all. It outlives the meter; what
  // is in it may change between two steps.
  explicit RouteMeter(std::span<const ExpertPlacement> placements) : placements_(placements) {}

  void OnLayer(int moe_layer_idx, const GateScores& scores, const RouteDecision& decision) override;

  const RouteTotals& totals() const { return totals_; }
  // [num_moe_layers seen][num_experts] pairs computed.
  const std::vector<std::vector<int64_t>>& loads() const { return loads_; }

 private:
  std::span<const ExpertPlacement> placements_;
  RouteTotals totals_;
  std::vector<std::vector<int64_t>> loads_;
};

}  // namespace gatehouse
