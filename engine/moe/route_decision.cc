#include "engine/moe/route_decision.h"

#include <algorithm>

namespace gatehouse {

RouteReport& RouteReport::operator+=(const RouteReport& other) {
  assignments += other.assignments;
  kept += other.kept;
  rerouted += other.rerouted;
  dropped += other.dropped;
  gate_mass += other.gate_mass;
  gate_mass_kept += other.gate_mass_kept;
  covered += other.covered;
  overrides += other.overrides;
  bare += other.bare;
  return *this;
}

RouteReport Summarise(const RouteDecision& decision) {
  RouteReport report;
  report.assignments = static_cast<int64_t>(decision.pairs.size());
  report.covered = static_cast<int64_t>(decision.covered.size());
  report.overrides = static_cast<int64_t>(decision.overrides.size());
  report.bare = static_cast<int64_t>(decision.bare_rows.size());
  for (const PairDecision& pair : decision.pairs) {
    report.gate_mass += pair.chosen_gate;
    switch (pair.fate) {
      case PairFate::kDropped:
        ++report.dropped;
        continue;
      case PairFate::kRerouted:
        ++report.rerouted;
        break;
      case PairFate::kKept:
        ++report.kept;
        break;
    }
    report.gate_mass_kept += pair.gate;
  }
  return report;
}

namespace {

// One without a budget counts nothing; one that may get nothing and has something is used as many
// times as it has pairs.
void AddDevices(const DomainBounds& domain, BoundsOutcome& outcome) {
  for (size_t d = 0; d < domain.device_loads.size(); ++d) {
    if (domain.device_budgets[d] == kNoBound) continue;
    if (outcome.device_budgets.size() <= d) {
      outcome.device_budgets.resize(domain.device_loads.size());
      outcome.device_loads.resize(domain.device_loads.size());
    }
    outcome.device_budgets[d] += domain.device_budgets[d];
    outcome.device_loads[d] += domain.device_loads[d];
    const auto budget = static_cast<double>(std::max<int64_t>(domain.device_budgets[d], 1));
    const double usage = static_cast<double>(domain.device_loads[d]) / budget;
    outcome.device_usage = std::max(outcome.device_usage, usage);
  }
}

void AddBounds(const DomainBounds& domain, BoundsOutcome& outcome) {
  for (size_t e = 0; e < outcome.expert_capacity.size(); ++e) {
    int64_t& sum = outcome.expert_capacity[e];
    const int64_t places = domain.expert_places[e];
    sum = places > kNoBound - sum ? kNoBound : sum + places;
  }
  for (const BoundCause cause : domain.expert_causes) ++outcome.causes[static_cast<int>(cause)];
  for (const uint8_t pressed : domain.expert_pressure) outcome.pressure += pressed;
  for (const int64_t evicted : domain.device_pressure) outcome.pressure += evicted;
  AddDevices(domain, outcome);
}

}  // namespace

BoundsOutcome OutcomeOf(const RouteDecision& decision, int num_experts) {
  BoundsOutcome outcome{.expert_rerouted = std::vector<int64_t>(num_experts),
                        .expert_dropped = std::vector<int64_t>(num_experts),
                        .expert_received = std::vector<int64_t>(num_experts)};
  for (const PairDecision& pair : decision.pairs) {
    const auto cause = static_cast<size_t>(pair.cause);
    if (pair.fate == PairFate::kRerouted) {
      ++outcome.expert_rerouted[pair.chosen_expert];
      ++outcome.expert_received[pair.expert];
      ++outcome.rerouted[cause];
    } else if (pair.fate == PairFate::kDropped) {
      ++outcome.expert_dropped[pair.chosen_expert];
      ++outcome.dropped[cause];
    }
  }
  if (decision.bounds.empty() && decision.block_bounds.empty()) return outcome;
  outcome.expert_capacity.assign(num_experts, 0);
  for (const DomainBounds& domain : decision.bounds) AddBounds(domain, outcome);
  for (const DomainBounds& block : decision.block_bounds) AddBounds(block, outcome);
  return outcome;
}

}  // namespace gatehouse
