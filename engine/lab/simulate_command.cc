// gatehouse-lab simulate.
#include <cmath>
#include <cstdio>
#include <deque>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "engine/lab/lab_command.h"
#include "engine/lab/simulator.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {

const char kSimulateUsage[] =
    "simulate TRACE [--policy \"NAME: WORDS\"]... [--factors LIST] [--placement NAME]...\n"
    "         routes a trace of the server (--record-routes) again under other policies and\n"
    "         placements: drops, imbalance, estimated time of the experts. Without --policy: "
    "exact.\n"
    "  --devices N        on N devices alike, or ranks (as the policy's words say)\n"
    "  --placement NAME   of the experts, one row each: linear (in order), round-robin, eplb and\n"
    "                     balanced (by the loads of the whole trace), rebalanced (linear at "
    "first,\n"
    "                     then by what was asked so far). Without: as the policy's words say\n"
    "  --replicas N       copies of experts beyond the first; without --placement: eplb\n"
    "  --rebalance N      rebalanced: a plan every N steps (100)\n"
    "  --half-life N      rebalanced: the pairs of a layer that outweigh its past (1000000)\n"
    "  --bound-decode     bound rows that decode too\n"
    "  --renormalise      weights after a drop, where the policy says `after_drop family`\n"
    "  --steps N          the first N steps (all)\n"
    "  --json             one JSON object a line, with the loads of each layer's experts\n";

namespace {

constexpr int64_t kMaxDevices = 1 << 12;
constexpr int64_t kMaxReplicas = 1 << 13;

struct SimulateCommand {
  std::string file;
  std::vector<EvalPolicy> policies;
  std::vector<double> factors;
  int64_t num_devices = 0;  // 0: the words say
  std::vector<std::string> placements;
  PlacementChoice choice;  // but for the name
  int64_t max_steps = 0;   // 0: all
  bool bound_decode = false, renormalise = false, json = false;
};

struct SimulatedCase {
  std::string name;
  double factor = 0;
  std::string placement;
  std::unique_ptr<Simulator> simulator;
};

absl::StatusOr<SimulateCommand> ReadCommand(const std::vector<std::string>& texts) {
  GATEHOUSE_ASSIGN_OR_RETURN(const LabWords words,
                             ReadLabWords(texts, {"--json", "--bound-decode", "--renormalise"},
                                          {"--policy", "--factors", "--devices", "--placement",
                                           "--replicas", "--rebalance", "--half-life", "--steps"}));
  if (words.plain.size() != 1) return absl::InvalidArgumentError("simulate: expected one trace");
  SimulateCommand command{.file = words.plain[0],
                          .bound_decode = words.Has("--bound-decode"),
                          .renormalise = words.Has("--renormalise"),
                          .json = words.Has("--json")};
  for (const std::string& text : words.All("--policy")) {
    GATEHOUSE_ASSIGN_OR_RETURN(EvalPolicy policy, ParseEvalPolicy(text));
    command.policies.push_back(std::move(policy));
  }
  if (command.policies.empty()) command.policies = {{"exact", "gamma off"}};
  GATEHOUSE_ASSIGN_OR_RETURN(command.factors,
                             ReadFactors(words.Last("--factors", "0.75,1,1.25,1.5,2,inf")));
  GATEHOUSE_ASSIGN_OR_RETURN(command.num_devices, words.Count("--devices", 0, 0, kMaxDevices));
  command.placements = words.All("--placement");
  GATEHOUSE_ASSIGN_OR_RETURN(const int64_t num_replicas,
                             words.Count("--replicas", 0, 0, kMaxReplicas));
  command.choice.num_replicas = static_cast<int>(num_replicas);
  GATEHOUSE_ASSIGN_OR_RETURN(
      command.choice.rebalance_steps,
      words.Count("--rebalance", command.choice.rebalance_steps, 1, int64_t{1} << 40));
  GATEHOUSE_ASSIGN_OR_RETURN(command.choice.half_life_pairs,
                             words.Number("--half-life", kLoadHalfLifePairs, 1, 1e15));
  if (command.placements.empty() && num_replicas > 0) command.placements = {"eplb"};
  if (command.placements.empty() && command.num_devices > 0) command.placements = {"linear"};
  GATEHOUSE_ASSIGN_OR_RETURN(command.max_steps, words.Count("--steps", 0, 0, int64_t{1} << 40));
  return command;
}

// Visits the steps of the trace.
template <typename Visit>
absl::StatusOr<TraceHeader> ReadTrace(const SimulateCommand& command, const Visit& visit) {
  std::ifstream stream(command.file, std::ios::binary);
  if (!stream)
    return absl::NotFoundError(command.file + ": cannot be read, expected a route trace");
  GATEHOUSE_ASSIGN_OR_RETURN(TraceReader reader, TraceReader::Open(stream, command.file));
  TraceStep step;
  for (int64_t i = 0; command.max_steps == 0 || i < command.max_steps; ++i) {
    GATEHOUSE_ASSIGN_OR_RETURN(const bool more, reader.Next(step));
    if (!more) break;
    GATEHOUSE_RETURN_IF_ERROR(visit(reader.header(), step));
  }
  return reader.header();
}

absl::StatusOr<std::vector<SimulatedCase>> MakeCases(const SimulateCommand& command,
                                                     const TraceHeader& header,
                                                     const LayerLoads& loads) {
  const PolicyModel model = {.num_moe_layers = header.num_moe_layers,
                             .num_experts = header.num_experts,
                             .top_k = header.top_k,
                             .renormalises = command.renormalise};
  std::vector<SimulatedCase> cases;
  for (const EvalPolicy& policy : command.policies) {
    std::vector<double> factors = {std::numeric_limits<double>::quiet_NaN()};
    if (policy.has_factor()) factors = command.factors;
    for (const double factor : factors) {
      GATEHOUSE_ASSIGN_OR_RETURN(PinnedPolicy pinned,
                                 MakePinnedPolicy(policy, model, {.factor = factor}));
      if (pinned.affinity == Affinity::kCosine) {
        return absl::InvalidArgumentError("affinity cosine: a trace holds no cosines");
      }
      pinned.bound_decode = command.bound_decode;
      std::vector<double> throughput = pinned.placement.throughput;
      if (command.num_devices > 0) throughput.assign(command.num_devices, 1);
      PlacementChoice choice = command.choice;
      for (const std::string& name : command.placements) {
        choice.name = name;
        GATEHOUSE_ASSIGN_OR_RETURN(LayerPlacements placements,
                                   LayerPlacements::Make(choice, throughput, loads));
        cases.push_back({policy.name, factor, name,
                         std::make_unique<Simulator>(header, pinned, std::move(placements))});
      }
      if (!command.placements.empty()) continue;
      LayerPlacements of_words(pinned.placement, header.num_moe_layers);
      cases.push_back({policy.name, factor, "words",
                       std::make_unique<Simulator>(header, pinned, std::move(of_words))});
    }
  }
  return cases;
}

void PrintTable(const std::vector<SimulatedCase>& cases) {
  std::printf("%-14s %-11s %6s %9s %8s %8s %8s %8s %8s %8s\n", "policy", "placement", "factor",
              "pairs", "dropped", "moved", "mass", "load", "devices", "time");
  for (const SimulatedCase& simulated : cases) {
    const RouteTotals& totals = simulated.simulator->meter().totals();
    const double moved = static_cast<double>(totals.report.rerouted) /
                         std::max(1.0, static_cast<double>(totals.report.assignments));
    const std::string factor =
        std::isnan(simulated.factor) ? "-" : absl::StrFormat("%g", simulated.factor);
    std::printf("%-14s %-11s %6s %9lld %7.2f%% %7.2f%% %8.4f %8.3f %8.3f %8.3f\n",
                simulated.name.c_str(), simulated.placement.c_str(), factor.c_str(),
                static_cast<long long>(totals.report.assignments), 100 * totals.drop_share(),
                100 * moved, totals.gate_mass_kept(), totals.mean_max_load(),
                totals.mean_max_device_load(), totals.step_time());
  }
  std::printf(
      "\nload, devices: of the busiest expert and device over the mean of what was asked, mean of\n"
      "layers and steps. time: of the experts on the slowest device, 1 where nothing is dropped\n"
      "and all devices are equally busy.\n");
  for (const SimulatedCase& simulated : cases) {
    const LayerPlacements& placements = simulated.simulator->placements();
    if (placements.num_rebalances() == 0) continue;
    std::printf("%s, %s: %lld layers rebalanced, %lld copies made, predicted to save %.1f%%\n",
                simulated.name.c_str(), simulated.placement.c_str(),
                static_cast<long long>(placements.num_rebalances()),
                static_cast<long long>(placements.num_moves()),
                100 * placements.mean_predicted_gain());
  }
}

void PrintJson(const std::vector<SimulatedCase>& cases) {
  for (const SimulatedCase& simulated : cases) {
    const RouteMeter& meter = simulated.simulator->meter();
    const RouteTotals& totals = meter.totals();
    const LayerPlacements& placements = simulated.simulator->placements();
    nlohmann::ordered_json line = {{"policy", simulated.name},
                                   {"placement", simulated.placement},
                                   {"factor", nullptr},
                                   {"assignments", totals.report.assignments},
                                   {"rerouted", totals.report.rerouted},
                                   {"dropped", totals.report.dropped},
                                   {"overrides", totals.report.overrides},
                                   {"gate_mass_kept", totals.gate_mass_kept()},
                                   {"max_load", totals.mean_max_load()},
                                   {"max_device_load", totals.mean_max_device_load()},
                                   {"step_time", totals.step_time()},
                                   {"rebalances", placements.num_rebalances()},
                                   {"copies_made", placements.num_moves()},
                                   {"predicted_gain", placements.mean_predicted_gain()},
                                   {"loads", meter.loads()}};
    if (std::isfinite(simulated.factor)) line["factor"] = simulated.factor;
    if (std::isinf(simulated.factor)) line["factor"] = "inf";
    std::printf("%s\n", line.dump().c_str());
  }
}

// The trace is read twice: what is wanted first, so that experts can be placed by it.
absl::Status Simulate(const SimulateCommand& command) {
  LayerLoads loads;
  GATEHOUSE_ASSIGN_OR_RETURN(const TraceHeader header,
                             ReadTrace(command, [&](const TraceHeader& of, const TraceStep& step) {
                               loads.resize(of.num_moe_layers,
                                            std::vector<int64_t>(of.num_experts, 0));
                               AddLoads(of, step, loads);
                               return absl::OkStatus();
                             }));
  if (loads.empty()) return absl::InvalidArgumentError(command.file + ": the trace has no steps");
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<SimulatedCase> cases,
                             MakeCases(command, header, loads));
  const absl::StatusOr<TraceHeader> routed =
      ReadTrace(command, [&](const TraceHeader&, const TraceStep& step) -> absl::Status {
        for (const SimulatedCase& simulated : cases) {
          GATEHOUSE_RETURN_IF_ERROR(simulated.simulator->Add(step));
        }
        return absl::OkStatus();
      });
  GATEHOUSE_RETURN_IF_ERROR(routed.status());
  if (command.json) {
    PrintJson(cases);
  } else {
    PrintTable(cases);
  }
  return absl::OkStatus();
}

}  // namespace

int RunSimulateCommand(const std::vector<std::string>& words) {
  const absl::StatusOr<SimulateCommand> command = ReadCommand(words);
  if (!command.ok()) return LabUsageError(command.status(), kSimulateUsage);
  return LabExitCode(Simulate(*command));
}

}  // namespace gatehouse
