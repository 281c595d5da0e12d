#include "engine/moe/route_decision.h"

namespace gatehouse {

RouteReport& RouteReport::operator+=(const RouteReport& other) {
  assignments += other.assignments;
  kept += other.kept;
  rerouted += other.rerouted;
  dropped += other.dropped;
  gate_mass += other.gate_mass;
  gate_mass_kept += other.gate_mass_kept;
  overrides += other.overrides;
  return *this;
}

RouteReport Summarise(const RouteDecision& decision) {
  RouteReport report;
  report.assignments = static_cast<int64_t>(decision.pairs.size());
  report.overrides = static_cast<int64_t>(decision.overrides.size());
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

}  // namespace gatehouse
