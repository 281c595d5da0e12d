#include "engine/lab/route_meter.h"

#include <algorithm>
#include <numeric>

namespace gatehouse {
namespace {

double Ratio(double part, double whole, double unless) { return whole > 0 ? part / whole : unless; }

}  // namespace

void RouteTotals::Add(const RouteTotals& other) {
  report.assignments += other.report.assignments;
  report.kept += other.report.kept;
  report.rerouted += other.report.rerouted;
  report.dropped += other.report.dropped;
  report.gate_mass += other.report.gate_mass;
  report.gate_mass_kept += other.report.gate_mass_kept;
  report.overrides += other.report.overrides;
  num_layers += other.num_layers;
  max_load += other.max_load;
  max_device_load += other.max_device_load;
  expert_time += other.expert_time;
  balanced_time += other.balanced_time;
}

double RouteTotals::drop_share() const {
  return Ratio(static_cast<double>(report.dropped), static_cast<double>(report.assignments), 0);
}
double RouteTotals::gate_mass_kept() const {
  return Ratio(report.gate_mass_kept, report.gate_mass, 1);
}
double RouteTotals::mean_max_load() const {
  return Ratio(max_load, static_cast<double>(num_layers), 0);
}
double RouteTotals::mean_max_device_load() const {
  return Ratio(max_device_load, static_cast<double>(num_layers), 0);
}
double RouteTotals::step_time() const { return Ratio(expert_time, balanced_time, 1); }

void RouteMeter::OnLayer(int moe_layer_idx, const GateScores& scores,
                         const RouteDecision& decision) {
  const auto layer = static_cast<size_t>(moe_layer_idx);
  if (loads_.size() <= layer) {
    loads_.resize(layer + 1, std::vector<int64_t>(scores.num_experts, 0));
  }
  const ExpertPlacement& placement = placements_[placements_.size() == 1 ? 0 : layer];
  const int num_devices = placement.num_devices;
  std::vector<int64_t> expert_load(scores.num_experts, 0), device_load(num_devices, 0);
  for (const PairDecision& pair : decision.pairs) {
    if (pair.fate == PairFate::kDropped) continue;
    ++expert_load[pair.expert];
    ++loads_[layer][pair.expert];
    // Exact rows know no devices but the first: there an expert's first copy computes.
    const bool placed = num_devices > 1 && pair.device == 0;
    ++device_load[placed ? placement.devices_of(pair.expert).front() : std::max(pair.device, 0)];
  }
  const RouteReport report = Summarise(decision);
  const auto asked = static_cast<double>(report.assignments);
  double slowest = 0, throughput = 0;
  for (int d = 0; d < num_devices; ++d) {
    const double v = placement.throughput[d];
    slowest = std::max(slowest, static_cast<double>(device_load[d]) / v);
    throughput += v;
  }
  RouteTotals step{.report = report, .num_layers = 1};
  const auto most = static_cast<double>(*std::max_element(expert_load.begin(), expert_load.end()));
  step.max_load = Ratio(most * scores.num_experts, asked, 0);
  step.max_device_load = Ratio(slowest * throughput, asked, 0);
  step.expert_time = slowest;
  step.balanced_time = asked / throughput;
  totals_.Add(step);
}

}  // namespace gatehouse
