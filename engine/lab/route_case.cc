#include "engine/lab/route_case.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_format.h"
#include "engine/lab/route_gate.h"
#include "engine/lab/route_settings.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

constexpr int64_t kMaxExperts = 1 << 16;  // of a case: typing errors stop here
constexpr int64_t kMaxDevices = 1 << 16;

TokenMode ReadMode(RouteSettingsReader& reader, TokenMode fallback) {
  return reader.Choice("mode", {"exact", "threshold", "block", "block_causal", "shared"}, fallback);
}

int ReadSize(RouteSettingsReader& reader, std::string_view name, int64_t fallback, int64_t most) {
  const int64_t size = reader.Count(name, fallback);
  if (size >= 0 && size <= most) return static_cast<int>(size);
  reader.Refuse(name, absl::StrFormat("a count from 0 to %d", most));
  return 0;
}

RouteGateRecipe ReadGate(RouteSettingsReader& reader, const RouteCase& route_case) {
  RouteGateRecipe gate;
  gate.num_experts = ReadSize(reader, "experts", 0, kMaxExperts);
  gate.num_nulls = ReadSize(reader, "null", 0, kMaxExperts);
  gate.top_k = ReadSize(reader, "top_k", 0, 2 * kMaxExperts);
  gate.input = reader.Choice("input", {"given", "logits", "hidden"}, RouteInput::kGiven);
  gate.score = reader.Choice(
      "score", {"given", "softmax", "sigmoid", "topk_softmax", "sparsemixer", "locmoe"},
      RouteScore::kGiven);
  gate.select_by_cosine = reader.Choice("select", {"gate", "cosine"}, 0) == 1;
  gate.affinity = reader.Choice("affinity", {"gate", "share", "cosine"}, RouteAffinity::kGate);
  gate.renormalise = reader.Switch("renorm", false);
  gate.scale = static_cast<float>(reader.Number("scale").value_or(1));
  gate.choice_bias = reader.Numbers("bias");
  gate.logit_bias = reader.Numbers("gate_bias");
  gate.num_groups = ReadSize(reader, "groups", 1, kMaxExperts);
  gate.num_open_groups = ReadSize(reader, "topk_group", 1, kMaxExperts);
  gate.group_by_two_largest = reader.Choice("group_score", {"max", "top2"}, 0) == 1;
  gate.jitter = static_cast<float>(reader.Number("jitter").value_or(0.01));
  gate.grap = reader.Has("gate_rows");
  if (gate.grap) reader.Choice("gate_rows", {"grap"}, 0);
  gate.gate_rows = route_case.gate_rows;
  return gate;
}

std::optional<double> ReadFactor(RouteSettingsReader& reader, std::string_view name) {
  const std::optional<double> factor = reader.Number(name);
  return factor == std::numeric_limits<double>::infinity() ? std::nullopt : factor;  // no bound
}

CapacityPolicy ReadCapacity(RouteSettingsReader& reader) {
  CapacityPolicy capacity;
  capacity.capacity = reader.Count("capacity");
  capacity.factor = ReadFactor(reader, "gamma");
  capacity.zeta = reader.Number("zeta");
  capacity.tile = reader.Count("tile", 1);
  capacity.min_tokens = reader.Count("t_min", 0);
  capacity.min_mean_load = reader.Number("nbar_min").value_or(reader.Has("nbar_min") ? 0 : 4);
  capacity.device_factor = ReadFactor(reader, "gamma_dev");
  capacity.ecr_error = reader.Number("eps");
  capacity.affinity_mass = reader.Number("tau");
  const std::optional<double> dim = reader.Number("d_eff"), delta = reader.Number("delta");
  if (dim.has_value() || delta.has_value()) {
    constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();
    capacity.theory = {.effective_dim = dim.value_or(kAbsent), .delta = delta.value_or(kAbsent)};
  }
  capacity.eager = reader.Switch("eager", false);
  capacity.rank_local = reader.Switch("rank_local", false);
  return capacity;
}

RoutingPolicy ReadPolicy(RouteSettingsReader& reader, const RouteGateRecipe& gate) {
  RoutingPolicy policy{.capacity = ReadCapacity(reader)};
  policy.block_tokens = reader.Count("block", 0);
  policy.order =
      reader.Choice("order", {"score", "arrival", "reverse", "random"}, PairOrder::kScore);
  policy.tier = reader.Choice("tier", {"off", "first", "rank"}, PairTier::kOff);
  const int64_t reroute = reader.Count("reroute", 0);
  if (reroute < 0) reader.Refuse("reroute", "a count from 0");
  policy.reroute = static_cast<int>(std::clamp<int64_t>(reroute, 0, gate.num_experts));
  if (gate.score == RouteScore::kSparsemixer) policy.reroute = 0;  // no weight but the chosen ones'
  policy.reroute_ratio = reader.Number("rho").value_or(reader.Has("rho") ? 0 : 0.5);
  const bool shared_expert = reader.Switch("shared_expert", false);
  policy.coverage = reader.Switch("coverage", true) && !shared_expert;
  const int after_drop = reader.Choice("after_drop", {"family", "renorm", "leave"}, 0);
  const bool family = gate.renormalise || gate.score == RouteScore::kTopkSoftmax;
  policy.renormalise_after_drop = after_drop == 1 || (after_drop == 0 && family);
  policy.max_renormalisation = static_cast<float>(reader.Number("r_max").value_or(2));
  const bool expert_choice = reader.Choice("policy", {"token_choice", "expert_choice"}, 0) == 1;
  const double choice_factor = reader.Number("choice_factor").value_or(2);
  if (expert_choice) policy.expert_choice = choice_factor;
  return policy;
}

std::vector<float> ReadThresholds(RouteSettingsReader& reader, int num_experts) {
  std::vector<float> thresholds = reader.Numbers("thresholds");
  if (thresholds.size() == 1) thresholds.resize(std::max(num_experts, 1), thresholds[0]);
  return thresholds;
}

// `place` 0,0+1,1: the devices of each expert.
ExpertPlacement ReadPlacement(RouteSettingsReader& reader, int num_experts) {
  const int num_devices = std::max(ReadSize(reader, "devices", 1, kMaxDevices), 1);
  ExpertPlacement placement = LinearPlacement(num_experts, num_devices);
  const std::vector<std::string_view> places = reader.Words("place");
  if (!places.empty()) {
    placement.copy_begin = {0};
    placement.copy_devices.clear();
    for (std::string_view place : places) {
      std::vector<int32_t> devices;
      while (!place.empty()) {
        const size_t plus = std::min(place.find('+'), place.size());
        int32_t device = -1;
        const auto [end, error] = std::from_chars(place.data(), place.data() + plus, device);
        const bool whole = error == std::errc() && end == place.data() + plus;
        if (!whole || device < 0 || device >= num_devices) {
          reader.Refuse("place", "device numbers, copies joined by +, experts by commas");
        }
        devices.push_back(device);
        place.remove_prefix(std::min(plus + 1, place.size()));
      }
      std::sort(devices.begin(), devices.end());
      if (devices.empty() || std::adjacent_find(devices.begin(), devices.end()) != devices.end()) {
        reader.Refuse("place", "different devices for the copies of an expert");
      }
      placement.copy_devices.insert(placement.copy_devices.end(), devices.begin(), devices.end());
      placement.copy_begin.push_back(placement.num_copies());
    }
    if (placement.num_experts() != num_experts) reader.Refuse("place", "one entry an expert");
  }
  const std::vector<double> throughput = reader.Reals("throughput");
  if (!throughput.empty()) {
    placement.throughput = throughput;
    if (throughput.size() != static_cast<size_t>(num_devices)) {
      reader.Refuse("throughput", "one number a device");
    }
  }
  return placement;
}

std::vector<int64_t> ReadRows(RouteSettingsReader& reader, std::string_view name, int count) {
  std::vector<int64_t> rows = reader.Counts(name);
  if (rows.empty()) return std::vector<int64_t>(count, kNoBound);
  if (rows.size() == 1) return std::vector<int64_t>(count, rows[0]);
  if (rows.size() != static_cast<size_t>(count)) reader.Refuse(name, "one count, or one for each");
  return rows;
}

absl::Status CheckRows(std::string_view name, const std::vector<int64_t>& rows) {
  for (const int64_t count : rows) {
    if (count < 0) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s: got %d, expected 0 or more", name, count));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckThroughput(const ExpertPlacement& placement) {
  for (const double v : placement.throughput) {
    if (!(v > 0) || !std::isfinite(v)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("throughput: got %g, expected a number above 0", v));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<RoutedToken> ReadToken(const RouteFileToken& line, int id, TokenMode mode) {
  RouteSettingsReader reader(line.attributes);
  RoutedToken token;
  token.mode = ReadMode(reader, mode);
  token.padding = reader.Switch("pad", false);
  token.request = reader.Count("request", 0);
  token.position = reader.Count("position", id);
  token.domain = ReadSize(reader, "domain", 0, 1 << 30);
  token.home_device = ReadSize(reader, "home", 0, kMaxDevices);
  token.rank = ReadSize(reader, "rank", 0, kMaxDevices);
  token.tie_key = static_cast<uint64_t>(id);
  if (const auto it = line.attributes.find("key"); it != line.attributes.end()) {
    const std::string& word = it->second.text;
    const auto [end, error] =
        std::from_chars(word.data(), word.data() + word.size(), token.tie_key);
    if (error != std::errc() || end != word.data() + word.size()) {
      reader.Refuse("key", "an unsigned number of 64 bits");
    }
  }
  if (reader.status().ok() && line.numbers.empty() && !token.padding) {
    return absl::OutOfRangeError(
        absl::StrFormat("line %d: token: got '-', expected numbers: it is not padding", line.line));
  }
  GATEHOUSE_RETURN_IF_ERROR(reader.status());
  return token;
}

}  // namespace

absl::StatusOr<RouteOutcome> DecideRouteCase(const RouteCase& route_case) {
  RouteSettingsReader reader(route_case.settings);
  const RouteGateRecipe gate = ReadGate(reader, route_case);
  const RoutingPolicy policy = ReadPolicy(reader, gate);
  const std::vector<float> thresholds = ReadThresholds(reader, gate.num_experts);
  const ExpertPlacement placement = ReadPlacement(reader, gate.num_experts);
  const RowLimits limits{.expert_rows = ReadRows(reader, "hw", gate.num_experts),
                         .device_rows = ReadRows(reader, "rows", placement.num_devices)};
  const int num_ranks = ReadSize(reader, "ranks", 1, kMaxDevices);
  const TokenMode mode = ReadMode(reader, TokenMode::kShared);
  std::vector<RoutedToken> tokens;
  std::vector<std::vector<float>> cosines;
  for (const RouteFileToken& line : route_case.tokens) {
    GATEHOUSE_ASSIGN_OR_RETURN(RoutedToken token,
                               ReadToken(line, static_cast<int>(tokens.size()), mode));
    RouteSettingsReader attributes(line.attributes);
    cosines.push_back(attributes.Numbers("cosine"));
    GATEHOUSE_RETURN_IF_ERROR(attributes.status());
    tokens.push_back(token);
  }
  GATEHOUSE_RETURN_IF_ERROR(reader.status());

  std::vector<RouteGateRow> rows;
  for (size_t t = 0; t < tokens.size(); ++t) {
    rows.push_back({route_case.tokens[t].numbers, cosines[t], tokens[t].padding});
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const GateScores scores, ScoreRows(gate, rows));
  GATEHOUSE_RETURN_IF_ERROR(ValidatePolicy(policy, gate.num_experts));
  if (!thresholds.empty()) {
    GATEHOUSE_RETURN_IF_ERROR(ValidateThresholds(thresholds, gate.num_experts));
  }
  GATEHOUSE_RETURN_IF_ERROR(CheckThroughput(placement));
  GATEHOUSE_RETURN_IF_ERROR(CheckRows("hw", limits.expert_rows));
  GATEHOUSE_RETURN_IF_ERROR(CheckRows("rows", limits.device_rows));
  if (num_ranks < 1) return absl::InvalidArgumentError("ranks: got 0, expected 1 or more");
  for (RoutedToken& token : tokens) token.policy_idx = 0;
  const LayerPolicy bounds{.policy = &policy, .placement = &placement, .thresholds = thresholds};
  GATEHOUSE_ASSIGN_OR_RETURN(RouteDecision decision, RouteBounded({.scores = scores,
                                                                   .tokens = tokens,
                                                                   .policies = {&bounds, 1},
                                                                   .placement = placement,
                                                                   .limits = limits,
                                                                   .num_ranks = num_ranks}));
  return RouteOutcome{.decision = std::move(decision),
                      .num_experts = gate.num_experts,
                      .num_devices = placement.num_devices};
}

}  // namespace gatehouse
