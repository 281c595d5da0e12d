#include "server/expert_series.h"

#include <algorithm>
#include <string>
#include <utility>

namespace gatehouse {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// The table. Labels stand behind the help.
struct Metric {
  MetricType type;
  const char* name;
  const char* help;
};
// clang-format off
constexpr Metric kAssignments{MetricType::Counter, "gatehouse_routing_assignments_total", "Pairs of a token and an expert that it chose, over all MoE layers."};  // mode, fate
constexpr Metric kGateMass{MetricType::Counter, "gatehouse_routing_gate_mass_total", "Gate values of the pairs chosen, and of those computed in the end."};       // mode, part
constexpr Metric kOverrides{MetricType::Counter, "gatehouse_routing_overrides_total", "Times a token of a layer got an expert beyond its bound, having lost all."};  // mode
constexpr Metric kCovered{MetricType::Counter, "gatehouse_routing_covered_tokens_total", "Times a token of a layer got an expert back within the bounds, having lost all."};  // mode
constexpr Metric kUncomputed{MetricType::Counter, "gatehouse_routing_uncomputed_tokens_total", "Times no expert computed a token of a layer."};                  // mode
constexpr Metric kCauses{MetricType::Counter, "gatehouse_expert_capacity_cause_total", "Experts by what bounds them, summed over layers, steps and domains or blocks."};  // cause
constexpr Metric kImbalance{MetricType::Gauge, "gatehouse_expert_load_imbalance_ratio", "Most loaded expert over the mean of the last 10 to 20 s; 1 is even."};  // layer
constexpr Metric kOverflow{MetricType::Counter, "gatehouse_expert_overflow_tokens_total", "Tokens that did not get an expert they chose, by what was done and why."};  // layer, action, cause
constexpr Metric kMassKept{MetricType::Gauge, "gatehouse_expert_gate_mass_kept_ratio", "Share of bounded tokens' gate values that was computed, since the start."};  // layer
constexpr Metric kCapacity{MetricType::Gauge, "gatehouse_expert_capacity_tokens", "Fewest places of an expert in the last step with tokens in shared mode or blocks; 0: not bounded."};  // layer
constexpr Metric kDeviceUsage{MetricType::Gauge, "gatehouse_device_budget_usage_ratio", "Most loaded device over its budget in the last step with one; 0: no budget."};  // layer
constexpr Metric kPressure{MetricType::Counter, "gatehouse_expert_pressure_total", "Floors that did not fit, and pairs that devices evicted below a floor."};    // layer
constexpr Metric kDeviceTokens{MetricType::Counter, "gatehouse_device_tokens_total", "Tokens that each device got under a budget, once for each expert."};     // device
constexpr Metric kDeviceBudget{MetricType::Counter, "gatehouse_device_budget_tokens_total", "Tokens that their budgets let devices have."};                     // device
constexpr Metric kTokens{MetricType::Counter, "gatehouse_expert_tokens_total", "Tokens that each expert computed."};                                            // layer, expert
constexpr Metric kChosen{MetricType::Counter, "gatehouse_expert_chosen_tokens_total", "Tokens whose gate chose the expert, before bounds."};                    // layer, expert
constexpr Metric kRerouted{MetricType::Counter, "gatehouse_expert_rerouted_tokens_total", "Tokens that chose the expert and went to another."};                 // layer, expert
constexpr Metric kDropped{MetricType::Counter, "gatehouse_expert_dropped_tokens_total", "Tokens that chose the expert and that nobody computed in its stead."};  // layer, expert
// clang-format on

constexpr const char* kCauseNames[kNumBoundCauses] = {"none", "fixed", "factor", "zeta",
                                                      "mass", "ecr",   "theory", "memory"};
constexpr const char* kEvictionNames[kNumEvictionCauses] = {"", "expert", "device", "threshold",
                                                            "coverage"};

// Calls fill(add), which calls add(labels, value) for each series.
template <typename Fill>
void Append(const Metric& metric, std::vector<MetricFamily>& families, const Fill& fill) {
  MetricFamily family{metric.name, metric.help, metric.type, {}};
  fill([&](std::vector<ClientMetric::Label> labels, double value) {
    ClientMetric& series = family.metric.emplace_back();
    series.label = std::move(labels);
    (metric.type == MetricType::Gauge ? series.gauge.value : series.counter.value) = value;
  });
  if (!family.metric.empty()) families.push_back(std::move(family));
}

using Layers = std::vector<LayerLoadCounts>;

// One series a mode that had tokens.
template <typename Value>
void AppendByMode(const Metric& metric, const ModeReports& reports,
                  std::vector<MetricFamily>& families, const Value& value) {
  Append(metric, families, [&](const auto& add) {
    for (int mode = 0; mode < kNumTokenModes; ++mode) {
      if (reports[mode].assignments == 0) continue;
      value(reports[mode], [&](const char* label, const char* label_value, double count) {
        std::vector<ClientMetric::Label> labels = {
            {"mode", TokenModeName(static_cast<TokenMode>(mode))}};
        if (label != nullptr) labels.insert(labels.begin(), {label, label_value});
        add(std::move(labels), count);
      });
    }
  });
}

void AppendTotals(const Layers& layers, std::vector<MetricFamily>& families) {
  ModeReports reports;
  std::array<int64_t, kNumBoundCauses> causes{};
  for (const LayerLoadCounts& layer : layers) {
    for (int mode = 0; mode < kNumTokenModes; ++mode) reports[mode] += layer.reports[mode];
    for (int cause = 0; cause < kNumBoundCauses; ++cause) causes[cause] += layer.causes[cause];
  }
  const auto bounded =
      std::find_if(reports.begin() + 1, reports.end(),
                   [](const RouteReport& report) { return report.assignments > 0; });
  if (bounded == reports.end()) return;  // exact from first to last: nothing to compare with
  AppendByMode(kAssignments, reports, families, [](const RouteReport& report, const auto& add) {
    add("fate", "kept", static_cast<double>(report.kept));
    add("fate", "rerouted", static_cast<double>(report.rerouted));
    add("fate", "dropped", static_cast<double>(report.dropped));
  });
  AppendByMode(kGateMass, reports, families, [](const RouteReport& report, const auto& add) {
    add("part", "chosen", report.gate_mass);
    add("part", "computed", report.gate_mass_kept);
  });
  AppendByMode(kOverrides, reports, families, [](const RouteReport& report, const auto& add) {
    add(nullptr, nullptr, static_cast<double>(report.overrides));
  });
  AppendByMode(kCovered, reports, families, [](const RouteReport& report, const auto& add) {
    add(nullptr, nullptr, static_cast<double>(report.covered));
  });
  AppendByMode(kUncomputed, reports, families, [](const RouteReport& report, const auto& add) {
    add(nullptr, nullptr, static_cast<double>(report.bare));
  });
  Append(kCauses, families, [&](const auto& add) {
    if (std::count(causes.begin(), causes.end(), 0) == kNumBoundCauses) return;
    for (int cause = 0; cause < kNumBoundCauses; ++cause) {
      add({{"cause", kCauseNames[cause]}}, static_cast<double>(causes[cause]));
    }
  });
}

void AppendDevices(const Metric& metric, const Layers& layers,
                   std::vector<int64_t> LayerLoadCounts::*counts,
                   std::vector<MetricFamily>& families) {
  std::vector<int64_t> sums;
  for (const LayerLoadCounts& layer : layers) {
    sums.resize(std::max(sums.size(), (layer.*counts).size()));
    for (size_t d = 0; d < (layer.*counts).size(); ++d) sums[d] += (layer.*counts)[d];
  }
  Append(metric, families, [&](const auto& add) {
    for (size_t d = 0; d < sums.size(); ++d) {
      add({{"device", std::to_string(d)}}, static_cast<double>(sums[d]));
    }
  });
}

RouteReport BoundedReport(const LayerLoadCounts& layer) {
  RouteReport sum;
  for (int mode = 0; mode < kNumTokenModes; ++mode) {
    if (mode != static_cast<int>(TokenMode::kExact)) sum += layer.reports[mode];
  }
  return sum;
}

// The other causes drop at once.
bool Reroutes(EvictionCause cause) {
  return cause == EvictionCause::kExpert || cause == EvictionCause::kDevice;
}

double FewestPlaces(const LayerLoadCounts& layer) {
  const int64_t fewest =
      *std::min_element(layer.expert_capacity.begin(), layer.expert_capacity.end());
  return fewest == kNoBound ? 0 : static_cast<double>(fewest);
}

void AppendByLayer(const Layers& layers, std::vector<MetricFamily>& families) {
  Append(kImbalance, families, [&](const auto& add) {
    for (const LayerLoadCounts& layer : layers) {
      add({{"layer", std::to_string(layer.layer)}}, layer.imbalance);
    }
  });
  Append(kOverflow, families, [&](const auto& add) {
    for (const LayerLoadCounts& layer : layers) {
      if (BoundedReport(layer).assignments == 0) continue;
      const std::string name = std::to_string(layer.layer);
      for (int i = 1; i < kNumEvictionCauses; ++i) {
        const std::string cause = kEvictionNames[i];
        add({{"action", "drop"}, {"cause", cause}, {"layer", name}},
            static_cast<double>(layer.dropped[i]));
        if (!Reroutes(static_cast<EvictionCause>(i))) continue;
        add({{"action", "reroute"}, {"cause", cause}, {"layer", name}},
            static_cast<double>(layer.rerouted[i]));
      }
    }
  });
  Append(kMassKept, families, [&](const auto& add) {
    for (const LayerLoadCounts& layer : layers) {
      const RouteReport report = BoundedReport(layer);
      if (report.gate_mass <= 0) continue;
      add({{"layer", std::to_string(layer.layer)}}, report.gate_mass_kept / report.gate_mass);
    }
  });
  const auto append_shared = [&](const Metric& metric, const auto& value) {
    Append(metric, families, [&](const auto& add) {
      for (const LayerLoadCounts& layer : layers) {
        if (layer.expert_capacity.empty()) continue;
        add({{"layer", std::to_string(layer.layer)}}, value(layer));
      }
    });
  };
  append_shared(kCapacity, FewestPlaces);
  append_shared(kDeviceUsage, [](const LayerLoadCounts& layer) { return layer.device_usage; });
  append_shared(kPressure,
                [](const LayerLoadCounts& layer) { return static_cast<double>(layer.pressure); });
}

void AppendByExpert(const Metric& metric, const Layers& layers,
                    std::vector<int64_t> LayerLoadCounts::*counts,
                    std::vector<MetricFamily>& families) {
  Append(metric, families, [&](const auto& add) {
    for (const LayerLoadCounts& layer : layers) {
      const std::string name = std::to_string(layer.layer);
      for (size_t expert = 0; expert < (layer.*counts).size(); ++expert) {
        add({{"expert", std::to_string(expert)}, {"layer", name}},
            static_cast<double>((layer.*counts)[expert]));
      }
    }
  });
}

// What an expert computed, less what others had chosen for themselves, and what it did not compute.
void AppendChosen(const Layers& layers, std::vector<MetricFamily>& families) {
  Append(kChosen, families, [&](const auto& add) {
    for (const LayerLoadCounts& layer : layers) {
      if (BoundedReport(layer).assignments == 0) continue;
      const std::string name = std::to_string(layer.layer);
      const auto at = [](const std::vector<int64_t>& counts, size_t expert) {
        return counts.empty() ? 0 : counts[expert];
      };
      for (size_t e = 0; e < layer.expert_tokens.size(); ++e) {
        const int64_t chosen = layer.expert_tokens[e] - at(layer.expert_received, e) +
                               at(layer.expert_rerouted, e) + at(layer.expert_dropped, e);
        add({{"expert", std::to_string(e)}, {"layer", name}}, static_cast<double>(chosen));
      }
    }
  });
}

}  // namespace

std::vector<MetricFamily> ExpertFamilies(const Layers& layers, int level) {
  std::vector<MetricFamily> families;
  AppendTotals(layers, families);
  AppendDevices(kDeviceTokens, layers, &LayerLoadCounts::device_loads, families);
  AppendDevices(kDeviceBudget, layers, &LayerLoadCounts::device_budgets, families);
  if (level >= 1) AppendByLayer(layers, families);
  if (level >= 2) {
    AppendByExpert(kTokens, layers, &LayerLoadCounts::expert_tokens, families);
    AppendChosen(layers, families);
    AppendByExpert(kRerouted, layers, &LayerLoadCounts::expert_rerouted, families);
    AppendByExpert(kDropped, layers, &LayerLoadCounts::expert_dropped, families);
  }
  return families;
}

}  // namespace gatehouse
