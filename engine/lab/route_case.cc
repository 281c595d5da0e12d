#include "engine/lab/route_case.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_format.h"
#include "engine/lab/route_gate.h"
#include "engine/lab/route_policy.h"
#include "engine/lab/route_settings.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

RouteGateRecipe ReadGate(RouteSettingsReader& reader, const RouteCase& route_case) {
  RouteGateRecipe gate;
  gate.num_experts = ReadSize(reader, "experts", 0, kMaxRouteExperts);
  gate.num_nulls = ReadSize(reader, "null", 0, kMaxRouteExperts);
  gate.top_k = ReadSize(reader, "top_k", 0, 2 * kMaxRouteExperts);
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
  gate.num_groups = ReadSize(reader, "groups", 1, kMaxRouteExperts);
  gate.num_open_groups = ReadSize(reader, "topk_group", 1, kMaxRouteExperts);
  gate.group_by_two_largest = reader.Choice("group_score", {"max", "top2"}, 0) == 1;
  gate.jitter = static_cast<float>(reader.Number("jitter").value_or(0.01));
  gate.grap = reader.Has("gate_rows");
  if (gate.grap) reader.Choice("gate_rows", {"grap"}, 0);
  gate.gate_rows = route_case.gate_rows;
  return gate;
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

absl::StatusOr<RoutedToken> ReadToken(const RouteFileToken& line, int id, TokenMode mode) {
  RouteSettingsReader reader(line.attributes);
  RoutedToken token;
  token.mode = ReadMode(reader, mode);
  token.padding = reader.Switch("pad", false);
  token.request = reader.Count("request", 0);
  token.position = reader.Count("position", id);
  token.domain = ReadSize(reader, "domain", 0, 1 << 30);
  token.home_device = ReadSize(reader, "home", 0, kMaxRouteDevices);
  token.rank = ReadSize(reader, "rank", 0, kMaxRouteDevices);
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
  RoutingPolicy policy = ReadRoutingPolicy(
      reader, gate.num_experts, gate.renormalise || gate.score == RouteScore::kTopkSoftmax);
  if (gate.score == RouteScore::kSparsemixer) policy.reroute = 0;  // no weight but the chosen ones'
  const std::vector<float> thresholds = ReadThresholds(reader, gate.num_experts);
  const ExpertPlacement placement = ReadPlacement(reader, gate.num_experts);
  const RowLimits limits{.expert_rows = ReadRows(reader, "hw", gate.num_experts),
                         .device_rows = ReadRows(reader, "rows", placement.num_devices)};
  const int num_ranks = ReadSize(reader, "ranks", 1, kMaxRouteDevices);
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
  GATEHOUSE_RETURN_IF_ERROR(ValidatePolicy(policy, {.num_experts = gate.num_experts}));
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
