#include "server/routing_policy_convert.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"
#include "proto/message_yaml.h"
#include "server/bounded_message.h"
#include "server/field_check.h"
#include "server/small_file.h"

namespace gatehouse {
namespace {

using Bounded = v1::BoundedRouting;

constexpr size_t kMaxPolicyBytes = size_t{4} << 20;

TokenMode ModeOf(const BoundedMessage& message) {
  if (message.is_shared) return TokenMode::kShared;
  switch (message.fields.isolation()) {
    case Bounded::BLOCK:
      return TokenMode::kBlock;
    case Bounded::BLOCK_CAUSAL:
      return TokenMode::kBlockCausal;
    default:
      return TokenMode::kThreshold;
  }
}

RoutingPolicy PolicyOf(const BoundedMessage& message) {
  const Bounded& m = message.fields;
  RoutingPolicy policy;
  CapacityPolicy& capacity = policy.capacity;
  if (m.has_expert_factor()) capacity.factor = m.expert_factor();
  if (m.has_zeta()) capacity.zeta = m.zeta();
  if (m.has_capacity()) capacity.capacity = m.capacity();
  if (m.has_device_factor()) capacity.device_factor = m.device_factor();
  capacity.tile = m.tile();
  capacity.min_tokens = m.min_tokens();
  capacity.min_mean_load = m.min_mean_load();
  if (m.has_ecr_error()) capacity.ecr_error = m.ecr_error();
  if (m.has_affinity_mass()) capacity.affinity_mass = m.affinity_mass();
  if (m.has_theory() && !message.takes_calibrated_theory()) {
    capacity.theory =
        TheoryFloor{.effective_dim = m.theory().effective_dimension(), .delta = m.theory().delta()};
  }
  capacity.eager = m.eager();
  if (message.in_blocks()) policy.block_tokens = m.block_tokens();
  if (message.Is("switch")) policy.order = PairOrder::kArrival;
  policy.reroute = m.reroute();
  policy.reroute_ratio = m.reroute_ratio();
  policy.coverage = m.coverage();
  policy.renormalise_after_drop = m.renormalise();
  policy.max_renormalisation = static_cast<float>(m.max_renormalisation());
  return policy;
}

absl::Status CheckRules(const RoutingFacts& facts, const RoutingPolicy& policy,
                        const std::string& path) {
  const absl::Status valid = ValidatePolicy(
      policy,
      {.num_experts = facts.model.num_experts, .has_shared_expert = facts.model.has_shared_expert});
  return valid.ok() ? valid : InvalidField(path, std::string(valid.message()));
}

// The policy of every layer, by the floors that the calibration measured there.
absl::Status TakeLayerTheory(const BoundedMessage& message, const std::vector<TheoryFloor>& floors,
                             PinnedPolicy& pinned) {
  for (size_t i = 0; i < floors.size(); ++i) {
    RoutingPolicy& of_layer = pinned.layer_policies.emplace_back(pinned.policy);
    if (pinned.layer_exempt[i] != 0) continue;
    of_layer.capacity.theory = floors[i];
    GATEHOUSE_RETURN_IF_ERROR(
        CheckRules(message.facts, of_layer,
                   absl::StrFormat("%s: the calibration's of layer %d", message.Path("theory"),
                                   message.facts.model.moe_layers[i])));
  }
  return absl::OkStatus();
}

// The place of a layer among the MoE layers.
absl::StatusOr<size_t> LayerIdx(const std::vector<int32_t>& layers, const std::string& path,
                                int32_t layer) {
  const auto found = std::find(layers.begin(), layers.end(), layer);
  if (found != layers.end()) return static_cast<size_t>(found - layers.begin());
  return InvalidField(path, absl::StrFormat("got %d, expected one of ModelInfo.moe_layers", layer));
}

absl::Status ReadExempt(const BoundedMessage& message, std::vector<uint8_t>& exempt) {
  const std::vector<int32_t>& moe_layers = message.facts.model.moe_layers;
  exempt.assign(moe_layers.size(), 0);
  const auto& layers = message.fields.exempt_layers().layers();
  for (int i = 0; i < layers.size(); ++i) {
    const std::string path = message.Path(absl::StrFormat("exempt_layers.layers[%d]", i));
    GATEHOUSE_ASSIGN_OR_RETURN(const size_t layer_idx, LayerIdx(moe_layers, path, layers[i]));
    exempt[layer_idx] = 1;
  }
  return absl::OkStatus();
}

absl::Status ReadThresholds(const BoundedMessage& message, PinnedPolicy& pinned) {
  const ModelDescription& model = message.facts.model;
  const auto& lists = message.fields.thresholds();
  if (!message.Is("threshold")) {
    if (!lists.empty())
      return InvalidField(message.Path("thresholds"), "set, expected only of policy threshold");
    if (pinned.mode != TokenMode::kThreshold) return absl::OkStatus();
  }
  const auto num_experts = static_cast<size_t>(model.num_experts);
  // Below every affinity: nothing is dropped.
  pinned.thresholds.assign(
      model.moe_layers.size(),
      std::vector<float>(num_experts, -std::numeric_limits<float>::infinity()));
  std::vector<uint8_t> is_given(pinned.thresholds.size(), 0);
  for (int i = 0; i < lists.size(); ++i) {
    const std::string path = message.Path(absl::StrFormat("thresholds[%d]", i));
    GATEHOUSE_ASSIGN_OR_RETURN(const size_t idx,
                               LayerIdx(model.moe_layers, path + ".layer", lists[i].layer()));
    if (is_given[idx] != 0) {
      return InvalidField(path + ".layer", absl::StrFormat("%d is given twice", lists[i].layer()));
    }
    is_given[idx] = 1;
    pinned.thresholds[idx].assign(lists[i].experts().begin(), lists[i].experts().end());
    const absl::Status valid = ValidateThresholds(pinned.thresholds[idx], model.num_experts);
    if (!valid.ok()) return InvalidField(path + ".experts", std::string(valid.message()));
  }
  for (size_t i = 0; message.Is("threshold") && i < is_given.size(); ++i) {
    if (is_given[i] != 0 || pinned.layer_exempt[i] != 0) continue;
    return InvalidField(
        message.Path("thresholds"),
        absl::StrFormat("none for layer %d, expected %d for each layer that is not exempt",
                        model.moe_layers[i], num_experts));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const PinnedPolicy>> ToPinnedPolicy(const RoutingFacts& facts,
                                                                   RoutingMode mode,
                                                                   v1::BoundedRouting& fields,
                                                                   const ExpertPlacement& placement,
                                                                   int64_t version) {
  const bool is_shared = mode == RoutingMode::kShared;
  const std::string path = is_shared ? "shared" : "isolated";
  GATEHOUSE_ASSIGN_OR_RETURN(const NamedPolicy* const named, FindPolicy(path, is_shared, fields));
  BoundedMessage message{facts, path, is_shared, fields, *named};
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<TheoryFloor> floors, Complete(message));
  GATEHOUSE_RETURN_IF_ERROR(Check(message));
  PinnedPolicy pinned{.version = version, .name = fields.policy(), .placement = placement};
  pinned.mode = ModeOf(message);
  pinned.policy = PolicyOf(message);
  pinned.affinity = static_cast<Affinity>(fields.affinity() - 1);
  pinned.bound_decode = fields.bound_decode();
  GATEHOUSE_RETURN_IF_ERROR(ReadExempt(message, pinned.layer_exempt));
  GATEHOUSE_RETURN_IF_ERROR(ReadThresholds(message, pinned));
  GATEHOUSE_RETURN_IF_ERROR(CheckRules(facts, pinned.policy, path));
  GATEHOUSE_RETURN_IF_ERROR(TakeLayerTheory(message, floors, pinned));
  return std::make_shared<const PinnedPolicy>(std::move(pinned));
}

absl::StatusOr<ExpertPlacement> ReadDevices(v1::ExpertDevices& devices, int num_experts) {
  if (!devices.has_count()) devices.set_count(1);
  const int count = devices.count();
  GATEHOUSE_RETURN_IF_ERROR(
      CheckField("devices.count", count, {1, double(std::max(num_experts, 1))}));
  ExpertPlacement placement = LinearPlacement(num_experts, count);
  if (devices.expert_device_size() != 0) {
    if (devices.expert_device_size() != num_experts) {
      return InvalidField("devices.expert_device",
                          absl::StrFormat("got %d, expected one for each of %d experts",
                                          devices.expert_device_size(), num_experts));
    }
    for (int e = 0; e < num_experts; ++e) {
      const int32_t device = devices.expert_device(e);
      GATEHOUSE_RETURN_IF_ERROR(CheckField(absl::StrFormat("devices.expert_device[%d]", e), device,
                                           {0, double(count - 1)}));
      placement.copy_devices[static_cast<size_t>(e)] = device;
    }
  }
  if (devices.throughput_size() == 0) return placement;
  if (devices.throughput_size() != count) {
    return InvalidField("devices.throughput",
                        absl::StrFormat("got %d, expected one for each of %d devices",
                                        devices.throughput_size(), count));
  }
  for (int d = 0; d < count; ++d) {
    GATEHOUSE_RETURN_IF_ERROR(CheckField(absl::StrFormat("devices.throughput[%d]", d),
                                         devices.throughput(d), {0, 1e15, true}));
    placement.throughput[static_cast<size_t>(d)] = devices.throughput(d);
  }
  return placement;
}

absl::Status CheckModeName(const char* field, v1::Routing::Mode mode) {
  if (mode >= v1::Routing::EXACT && mode <= v1::Routing::SHARED) return absl::OkStatus();
  return InvalidField(
      field, absl::StrFormat("got %d, expected EXACT, ISOLATED or SHARED", static_cast<int>(mode)));
}

}  // namespace

RoutingFacts FactsOf(const ModelDescription& model, const EngineConfig& config) {
  const SchedulerOptions& scheduler = config.scheduler;
  return {.model = model,
          .block_tokens = config.cache.block_tokens,
          .max_chunk_tokens = scheduler.max_step_tokens - MaxRunning(scheduler)};
}

absl::StatusOr<v1::RoutingPolicy> LoadRoutingPolicy(const ServerConfig& config) {
  v1::RoutingPolicy policy;
  const std::string& file = config.routing_config;
  if (file.empty()) return policy;
  GATEHOUSE_ASSIGN_OR_RETURN(const std::string yaml, ReadSmallFile(file, kMaxPolicyBytes));
  const absl::Status read = MessageFromYaml(yaml, policy);
  if (!read.ok()) return InvalidField(file, std::string(read.message()));
  return policy;
}

absl::StatusOr<RoutingTable> ToRoutingTable(const RoutingFacts& facts, v1::RoutingPolicy& policy) {
  if (!policy.has_default_mode()) policy.set_default_mode(v1::Routing::EXACT);
  if (!policy.has_loosest_mode()) policy.set_loosest_mode(v1::Routing::SHARED);
  GATEHOUSE_RETURN_IF_ERROR(CheckModeName("default_mode", policy.default_mode()));
  GATEHOUSE_RETURN_IF_ERROR(CheckModeName("loosest_mode", policy.loosest_mode()));
  if (policy.default_mode() > policy.loosest_mode()) {
    return InvalidField("default_mode",
                        absl::StrFormat("got %s, loosest_mode allows %s",
                                        v1::Routing::Mode_Name(policy.default_mode()),
                                        v1::Routing::Mode_Name(policy.loosest_mode())));
  }
  RoutingTable table{.version = policy.version(),
                     .default_mode = static_cast<RoutingMode>(policy.default_mode() - 1),
                     .loosest_mode = static_cast<RoutingMode>(policy.loosest_mode() - 1)};
  const auto lacks = [&](v1::Routing::Mode mode) {
    return (mode == v1::Routing::ISOLATED && !policy.has_isolated()) ||
           (mode == v1::Routing::SHARED && !policy.has_shared());
  };
  if (lacks(policy.default_mode())) {
    return InvalidField("default_mode",
                        absl::StrFormat("got %s, for which there is no policy",
                                        v1::Routing::Mode_Name(policy.default_mode())));
  }
  if (!policy.has_isolated() && !policy.has_shared() && !policy.has_devices()) return table;
  if (facts.model.num_experts == 0) {
    return absl::FailedPreconditionError("isolated, shared: this model has no experts to bound");
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const ExpertPlacement placement,
                             ReadDevices(*policy.mutable_devices(), facts.model.num_experts));
  if (policy.has_isolated()) {
    GATEHOUSE_ASSIGN_OR_RETURN(
        table.isolated, ToPinnedPolicy(facts, RoutingMode::kIsolated, *policy.mutable_isolated(),
                                       placement, table.version));
  }
  if (policy.has_shared()) {
    GATEHOUSE_ASSIGN_OR_RETURN(table.shared,
                               ToPinnedPolicy(facts, RoutingMode::kShared, *policy.mutable_shared(),
                                              placement, table.version));
  }
  return table;
}

}  // namespace gatehouse
