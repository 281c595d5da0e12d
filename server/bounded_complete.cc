#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "engine/moe/calibration.h"
#include "kernels/base/status_macros.h"
#include "server/bounded_message.h"
#include "server/field_check.h"

namespace gatehouse {
namespace {

using Bounded = v1::BoundedRouting;

constexpr double kDefaultDeviceFactor = 1.25;
constexpr int64_t kDefaultBlockTokens = 64;
constexpr int kDefaultReroute = 8;

absl::Status TakeCalibration(BoundedMessage& message, std::vector<TheoryFloor>& layer_theory) {
  Bounded& m = message.fields;
  if (m.calibration_file().empty()) return absl::OkStatus();
  const ModelDescription& model = message.facts.model;
  const CalibratedModel calibrated{.hash = model.hash,
                                   .num_moe_layers = static_cast<int32_t>(model.moe_layers.size()),
                                   .num_experts = model.num_experts};
  absl::StatusOr<Calibration> calibration = LoadCalibration(m.calibration_file());
  absl::Status status = calibration.status();
  if (status.ok()) status = CheckCalibration(*calibration, calibrated, m.calibration_file());
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrFormat("%s: %s", message.Path("calibration_file"),
                                                       std::string(status.message())));
  }
  const auto affinity = static_cast<Bounded::Affinity>(static_cast<int>(calibration->affinity) + 1);
  if (!m.has_affinity()) m.set_affinity(affinity);
  if (!m.has_exempt_layers()) {
    m.mutable_exempt_layers();
    for (size_t i = 0; i < model.moe_layers.size(); ++i) {
      if (calibration->layers[i].exempt) m.mutable_exempt_layers()->add_layers(model.moe_layers[i]);
    }
  }
  if (message.takes_calibrated_theory()) {
    for (const CalibratedLayer& layer : calibration->layers) {
      layer_theory.push_back({.effective_dim = layer.effective_dim, .delta = layer.delta});
    }
  }
  if (!message.Is("threshold") || m.thresholds_size() > 0) return absl::OkStatus();
  if (m.affinity() != affinity) {
    return InvalidField(
        message.Path("affinity"),
        absl::StrFormat("got %s, the calibration's thresholds are of %s",
                        Bounded::Affinity_Name(m.affinity()), Bounded::Affinity_Name(affinity)));
  }
  for (size_t i = 0; i < model.moe_layers.size(); ++i) {
    v1::LayerThresholds& thresholds = *m.add_thresholds();
    thresholds.set_layer(model.moe_layers[i]);
    const std::vector<float>& of_layer = calibration->layers[i].thresholds;
    thresholds.mutable_experts()->Add(of_layer.begin(), of_layer.end());
  }
  return absl::OkStatus();
}

void FillDefaults(BoundedMessage& message) {
  Bounded& m = message.fields;
  const ModelDescription& model = message.facts.model;
  if (!message.is_shared && !m.has_isolation()) {
    m.set_isolation(message.policy.threshold ? Bounded::THRESHOLD
                    : message.Is("switch")   ? Bounded::BLOCK  // causal blocks cover every token
                                             : Bounded::BLOCK_CAUSAL);
  }
  if (message.in_blocks() && !m.has_block_tokens()) m.set_block_tokens(kDefaultBlockTokens);
  const bool has_bound = m.has_expert_factor() || m.has_capacity() || m.has_device_factor();
  if (message.is_shared && !has_bound && !message.Is("token_choice") && !message.Is("locmoe")) {
    m.set_device_factor(kDefaultDeviceFactor);
  }
  if (!m.has_tile()) m.set_tile(1);
  if (!m.has_min_tokens()) m.set_min_tokens(0);
  if (!m.has_min_mean_load()) m.set_min_mean_load(CapacityPolicy().min_mean_load);
  if (!m.has_eager()) m.set_eager(false);
  if (!m.has_affinity()) m.set_affinity(Bounded::GATE);
  const bool reroutes =
      !message.Is("switch") && !message.Is("threshold") && !message.Is("token_choice");
  if (!m.has_reroute()) m.set_reroute(reroutes ? std::min(kDefaultReroute, model.num_experts) : 0);
  if (!m.has_reroute_ratio()) m.set_reroute_ratio(RoutingPolicy().reroute_ratio);
  if (!m.has_coverage()) {
    m.set_coverage(model.top_k >= 2 && !model.has_shared_expert && reroutes);
  }
  if (!m.has_renormalise()) m.set_renormalise(model.renormalises_weights);
  if (!m.has_max_renormalisation()) {
    m.set_max_renormalisation(RoutingPolicy().max_renormalisation);
  }
  if (!m.has_bound_decode()) m.set_bound_decode(false);
  if (!m.has_exempt_layers()) {
    v1::LayerList& exempt = *m.mutable_exempt_layers();
    if (!model.moe_layers.empty()) exempt.add_layers(model.moe_layers.front());
    if (model.moe_layers.size() > 1) exempt.add_layers(model.moe_layers.back());
  }
}

}  // namespace

absl::StatusOr<std::vector<TheoryFloor>> Complete(BoundedMessage& message) {
  std::vector<TheoryFloor> layer_theory;
  GATEHOUSE_RETURN_IF_ERROR(TakeCalibration(message, layer_theory));
  FillDefaults(message);
  return layer_theory;
}

}  // namespace gatehouse
