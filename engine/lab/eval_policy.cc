#include "engine/lab/eval_policy.h"

#include <cmath>

#include "absl/strings/str_format.h"
#include "engine/lab/route_file.h"
#include "engine/lab/route_policy.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

// Of the words, without F.
std::string WithFactor(const std::string& words, double factor) {
  std::string text;
  size_t begin = 0;
  while (begin < words.size()) {
    const size_t end = std::min(words.find(' ', begin), words.size());
    const std::string word = words.substr(begin, end - begin);
    text += word == "F" ? (std::isinf(factor) ? "off" : absl::StrFormat("%.17g", factor)) : word;
    text += ' ';
    begin = end + 1;
  }
  return text;
}

absl::Status OfPolicy(const EvalPolicy& policy, const absl::Status& status) {
  return absl::InvalidArgumentError(
      absl::StrFormat("policy %s: %s", policy.name, std::string(status.message())));
}

// What speaks of rows or of a gate has no place here.
absl::Status CheckWords(const RouteSettings& settings) {
  for (const char* name : {"input", "score", "select", "renorm", "scale", "bias", "gate_bias",
                           "groups", "topk_group", "group_score", "null", "jitter", "gate_rows",
                           "hw", "rows", "ranks", "shared_expert", "rank_local"}) {
    if (settings.count(name) > 0) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s: the model decides, no policy does", name));
    }
  }
  return absl::OkStatus();
}

absl::Status TakeThresholds(const RouteSettings& settings, const PolicyModel& model,
                            const PolicyPlace& place, PinnedPolicy& pinned) {
  const auto words = settings.find("thresholds");
  if (words == settings.end()) return absl::OkStatus();
  if (words->second.text != "calibrated") {
    RouteSettingsReader reader(settings);
    pinned.thresholds.assign(model.num_moe_layers, ReadThresholds(reader, model.num_experts));
    return reader.status();
  }
  if (place.calibration == nullptr) {
    return absl::InvalidArgumentError("thresholds: got calibrated, expected --calibration");
  }
  for (const CalibratedLayer& layer : place.calibration->layers) {
    pinned.thresholds.push_back(layer.thresholds);
  }
  return absl::OkStatus();
}

}  // namespace

bool EvalPolicy::has_factor() const { return (" " + words + " ").find(" F ") != std::string::npos; }

absl::StatusOr<EvalPolicy> ParseEvalPolicy(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos || colon == 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("policy: got \"%s\", expected \"name: words of a route file\"", text));
  }
  return EvalPolicy{std::string(text.substr(0, colon)), std::string(text.substr(colon + 1))};
}

std::vector<EvalPolicy> CurvePolicies(Affinity affinity) {
  const char* names[] = {"gate", "share", "cosine"};
  const std::string all =
      absl::StrFormat(" nbar_min 0 zeta off coverage off after_drop leave affinity %s",
                      names[static_cast<int>(affinity)]);
  const std::string four = " devices 4" + all, reroute = "gamma F reroute 4 rho 0";
  return {{"arrival", "gamma F order arrival" + four},
          {"random", "gamma F order random" + four},
          {"score", "gamma F" + four},
          {"score + reroute", reroute + " devices 1" + all},
          {"score + reroute, 4 devices", reroute + four},
          {"device", "gamma_dev F" + four}};
}

absl::StatusOr<PinnedPolicy> MakePinnedPolicy(const EvalPolicy& policy, const PolicyModel& model,
                                              const PolicyPlace& place) {
  const std::string text = "case policy\n" + WithFactor(policy.words, place.factor) + "\n";
  const absl::StatusOr<std::vector<RouteCase>> cases = ParseRouteFile(text, policy.name);
  if (!cases.ok()) return OfPolicy(policy, cases.status());
  const RouteSettings& settings = cases->front().settings;
  const absl::Status words = CheckWords(settings);
  if (!words.ok()) return OfPolicy(policy, words);
  RouteSettingsReader reader(settings);
  PinnedPolicy pinned{.version = 1, .name = policy.name};
  pinned.mode = ReadMode(reader, TokenMode::kShared);
  pinned.policy = ReadRoutingPolicy(reader, model.num_experts, model.renormalises);
  if (model.has_shared_expert) pinned.policy.coverage = false;
  pinned.affinity = reader.Choice("affinity", {"gate", "share", "cosine"}, Affinity::kGate);
  pinned.placement = ReadPlacement(reader, model.num_experts);
  pinned.layer_exempt.assign(model.num_moe_layers, 0);
  for (const int32_t layer : place.exempt_layers) {
    if (layer < 0 || layer >= model.num_moe_layers) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "exempt layer: got %d, expected one of %d MoE layers", layer, model.num_moe_layers));
    }
    pinned.layer_exempt[layer] = 1;
  }
  pinned.bound_decode = true;
  if (!reader.status().ok()) return OfPolicy(policy, reader.status());
  for (const absl::Status& status :
       {TakeThresholds(settings, model, place, pinned), CheckThroughput(pinned.placement),
        ValidatePolicy(pinned.policy, {.num_experts = model.num_experts,
                                      .has_shared_expert = model.has_shared_expert})}) {
    if (!status.ok()) return OfPolicy(policy, status);
  }
  if (pinned.mode == TokenMode::kThreshold && pinned.thresholds.empty()) {
    return OfPolicy(policy, absl::InvalidArgumentError("mode threshold: expected thresholds"));
  }
  const bool in_block = pinned.mode == TokenMode::kBlock || pinned.mode == TokenMode::kBlockCausal;
  if (in_block && pinned.policy.block_tokens < 1) {
    return OfPolicy(policy, absl::InvalidArgumentError("mode block: expected block"));
  }
  for (const std::vector<float>& thresholds : pinned.thresholds) {
    const absl::Status status = ValidateThresholds(thresholds, model.num_experts);
    if (!status.ok()) return OfPolicy(policy, status);
  }
  return pinned;
}

}  // namespace gatehouse
