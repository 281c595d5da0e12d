#include "server/routing_policy_convert.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "engine/moe/calibration.h"
#include "kernels/base/status_macros.h"
#include "proto/message_yaml.h"
#include "server/small_file.h"

namespace gatehouse {
namespace {

using Bounded = v1::BoundedRouting;

constexpr double kDefaultDeviceFactor = 1.25;
constexpr int64_t kDefaultBlockTokens = 64;
constexpr int kDefaultReroute = 8;
constexpr size_t kMaxPolicyBytes = size_t{4} << 20;
constexpr double kMaxFactor = 1e6;
constexpr int64_t kMaxCount = int64_t{1} << 40;

absl::Status Invalid(const std::string& path, const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrFormat("%s: %s", path, problem));
}

// Ends of a range; written so that NaN lies in none.
struct Range {
  double low = 0;
  double high = std::numeric_limits<double>::infinity();
  bool low_is_open = false;
};

absl::Status CheckIn(const std::string& path, double value, const Range& range) {
  const bool above = range.low_is_open ? value > range.low : value >= range.low;
  if (above && value <= range.high && std::isfinite(value)) return absl::OkStatus();
  const std::string low =
      absl::StrFormat("%s %.15g", range.low_is_open ? "above" : "at least", range.low);
  const std::string high =
      std::isfinite(range.high) ? absl::StrFormat(", at most %.15g", range.high) : "";
  return Invalid(path, absl::StrFormat("got %.15g, expected a number %s%s", value, low, high));
}

// Which policies a mode may be given. Order and domains of the others (docs/routing.md) are for the
// workbench alone.
struct NamedPolicy {
  const char* name;
  bool shared;
  bool threshold;  // isolated, token by token
  bool block;      // isolated, block by block
};
constexpr std::array<NamedPolicy, 6> kPolicies = {{
    {"token_choice", true, true, false},
    {"locmoe_plus", true, false, true},
    {"locmoe", true, false, true},
    {"device_bound", true, false, false},
    {"switch", false, false, true},
    {"threshold", false, true, false},
}};

std::string NamesFor(bool shared) {
  std::string names;
  for (const NamedPolicy& policy : kPolicies) {
    if (!(shared ? policy.shared : policy.threshold || policy.block)) continue;
    names += names.empty() ? policy.name : std::string(", ") + policy.name;
  }
  return names;
}

// One mode's message on its way to a PinnedPolicy.
class BoundedConverter {
 public:
  BoundedConverter(const RoutingFacts& facts, std::string path, bool shared, Bounded& message)
      : facts_(facts), path_(std::move(path)), shared_(shared), message_(message) {}

  absl::StatusOr<std::shared_ptr<const PinnedPolicy>> Convert(const ExpertPlacement& placement,
                                                              int64_t version) {
    GATEHOUSE_RETURN_IF_ERROR(FindPolicy());
    GATEHOUSE_RETURN_IF_ERROR(ReadCalibration());
    FillDefaults();
    GATEHOUSE_RETURN_IF_ERROR(CheckMode());
    GATEHOUSE_RETURN_IF_ERROR(CheckNumbers());
    PinnedPolicy pinned{.version = version, .name = message_.policy(), .placement = placement};
    pinned.mode = ModeOf();
    pinned.policy = PolicyOf();
    pinned.affinity = static_cast<Affinity>(message_.affinity() - 1);
    pinned.bound_decode = message_.bound_decode();
    GATEHOUSE_RETURN_IF_ERROR(ReadExempt(pinned.layer_exempt));
    GATEHOUSE_RETURN_IF_ERROR(ReadThresholds(pinned));
    const absl::Status valid = ValidatePolicy(pinned.policy, Limits());
    if (!valid.ok()) return Invalid(path_, std::string(valid.message()));
    GATEHOUSE_RETURN_IF_ERROR(TakeLayerTheory(pinned));
    return std::make_shared<const PinnedPolicy>(std::move(pinned));
  }

 private:
  std::string Path(const std::string& field) const { return path_ + "." + field; }
  bool Is(std::string_view name) const { return name == policy_->name; }
  bool in_blocks() const { return !shared_ && message_.isolation() != Bounded::THRESHOLD; }

  absl::Status FindPolicy() {
    for (const NamedPolicy& policy : kPolicies) {
      if (message_.policy() == policy.name) policy_ = &policy;
    }
    const bool allowed =
        policy_ != nullptr && (shared_ ? policy_->shared : policy_->threshold || policy_->block);
    if (allowed) return absl::OkStatus();
    return Invalid(Path("policy"), absl::StrFormat("got \"%s\", expected one of %s",
                                                   message_.policy(), NamesFor(shared_)));
  }

  absl::Status ReadCalibration() {
    Bounded& m = message_;
    if (m.calibration_file().empty()) return absl::OkStatus();
    const ModelDescription& model = facts_.model;
    const CalibratedModel calibrated{
        .hash = model.hash,
        .num_moe_layers = static_cast<int32_t>(model.moe_layers.size()),
        .num_experts = model.num_experts};
    absl::StatusOr<Calibration> calibration = LoadCalibration(m.calibration_file());
    absl::Status status = calibration.status();
    if (status.ok()) status = CheckCalibration(*calibration, calibrated, m.calibration_file());
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrFormat("%s: %s", Path("calibration_file"),
                                                         std::string(status.message())));
    }
    const auto affinity =
        static_cast<Bounded::Affinity>(static_cast<int>(calibration->affinity) + 1);
    if (!m.has_affinity()) m.set_affinity(affinity);
    if (!m.has_exempt_layers()) {
      m.mutable_exempt_layers();
      for (size_t i = 0; i < model.moe_layers.size(); ++i) {
        if (calibration->layers[i].exempt)
          m.mutable_exempt_layers()->add_layers(model.moe_layers[i]);
      }
    }
    if (m.has_theory() && !m.theory().has_effective_dimension() && !m.theory().has_delta()) {
      for (const CalibratedLayer& layer : calibration->layers) {
        layer_theory_.push_back({.effective_dim = layer.effective_dim, .delta = layer.delta});
      }
    }
    if (!Is("threshold") || m.thresholds_size() > 0) return absl::OkStatus();
    if (m.affinity() != affinity) {
      return Invalid(
          Path("affinity"),
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

  void FillDefaults() {
    Bounded& m = message_;
    const ModelDescription& model = facts_.model;
    if (!shared_ && !m.has_isolation()) {
      m.set_isolation(policy_->threshold ? Bounded::THRESHOLD
                      : Is("switch")     ? Bounded::BLOCK  // causal blocks cover every token
                                         : Bounded::BLOCK_CAUSAL);
    }
    if (in_blocks() && !m.has_block_tokens()) m.set_block_tokens(kDefaultBlockTokens);
    const bool has_bound = m.has_expert_factor() || m.has_capacity() || m.has_device_factor();
    if (shared_ && !has_bound && !Is("token_choice") && !Is("locmoe")) {
      m.set_device_factor(kDefaultDeviceFactor);
    }
    if (!m.has_tile()) m.set_tile(1);
    if (!m.has_min_tokens()) m.set_min_tokens(0);
    if (!m.has_min_mean_load()) m.set_min_mean_load(CapacityPolicy().min_mean_load);
    if (!m.has_eager()) m.set_eager(false);
    if (!m.has_affinity()) m.set_affinity(Bounded::GATE);
    const bool reroutes = !Is("switch") && !Is("threshold") && !Is("token_choice");
    if (!m.has_reroute())
      m.set_reroute(reroutes ? std::min(kDefaultReroute, model.num_experts) : 0);
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

  // A combination that would break what the mode promises.
  absl::Status CheckMode() {
    const Bounded& m = message_;
    if (shared_ && m.has_isolation()) {
      return Invalid(Path("isolation"), "set, expected only of isolated");
    }
    if (shared_) {
      if (Is("token_choice") || m.force() || !m.calibration_file().empty()) return absl::OkStatus();
      return absl::FailedPreconditionError(
          absl::StrFormat("%s: not set: shared mode needs a calibration of this model, or force: "
                          "true to go without knowing what it costs",
                          Path("calibration_file")));
    }
    const bool is_threshold = m.isolation() == Bounded::THRESHOLD;
    const bool known =
        is_threshold || m.isolation() == Bounded::BLOCK || m.isolation() == Bounded::BLOCK_CAUSAL;
    if (!known || !(is_threshold ? policy_->threshold : policy_->block)) {
      return Invalid(Path("isolation"),
                     absl::StrFormat(
                         "got %s, expected %s of policy %s", Bounded::Isolation_Name(m.isolation()),
                         policy_->block ? "BLOCK or BLOCK_CAUSAL" : "THRESHOLD", policy_->name));
    }
    if (m.has_device_factor()) {
      return Invalid(Path("device_factor"),
                     "set: a device's load is other requests' too; isolated mode bounds experts");
    }
    if (in_blocks() && m.bound_decode()) {
      return Invalid(Path("bound_decode"), "true: one generated token is no block to compete in");
    }
    return absl::OkStatus();
  }

  absl::Status CheckNumbers() {
    const Bounded& m = message_;
    const Range factor{0, kMaxFactor, true};
    if (m.has_expert_factor()) {
      GATEHOUSE_RETURN_IF_ERROR(CheckIn(Path("expert_factor"), m.expert_factor(), factor));
    }
    if (m.has_device_factor()) {
      GATEHOUSE_RETURN_IF_ERROR(CheckIn(Path("device_factor"), m.device_factor(), factor));
    }
    const auto check = [this](const char* field, double value, const Range& range) {
      return CheckIn(Path(field), value, range);
    };
    GATEHOUSE_RETURN_IF_ERROR(check("zeta", m.zeta(), {0, kMaxFactor}));
    GATEHOUSE_RETURN_IF_ERROR(check("tile", static_cast<double>(m.tile()), {1, 1 << 20}));
    GATEHOUSE_RETURN_IF_ERROR(
        check("capacity", static_cast<double>(m.capacity()), {0, double{kMaxCount}}));
    GATEHOUSE_RETURN_IF_ERROR(
        check("min_tokens", static_cast<double>(m.min_tokens()), {0, double{kMaxCount}}));
    GATEHOUSE_RETURN_IF_ERROR(check("min_mean_load", m.min_mean_load(), {0}));
    if (m.has_ecr_error()) {
      GATEHOUSE_RETURN_IF_ERROR(check("ecr_error", m.ecr_error(), {0, 1, true}));
    }
    GATEHOUSE_RETURN_IF_ERROR(check("affinity_mass", m.affinity_mass(), {0, 1}));
    if (m.has_theory() && layer_theory_.empty()) {
      GATEHOUSE_RETURN_IF_ERROR(
          check("theory.effective_dimension", m.theory().effective_dimension(), factor));
      GATEHOUSE_RETURN_IF_ERROR(check("theory.delta", m.theory().delta(), {0, 1}));
    }
    const double num_experts = facts_.model.num_experts;
    GATEHOUSE_RETURN_IF_ERROR(check("reroute", m.reroute(), {0, num_experts}));
    GATEHOUSE_RETURN_IF_ERROR(check("reroute_ratio", m.reroute_ratio(), {0}));
    GATEHOUSE_RETURN_IF_ERROR(
        check("max_renormalisation", m.max_renormalisation(), {1, kMaxFactor}));
    if (m.affinity() < Bounded::GATE || m.affinity() > Bounded::COSINE) {
      return Invalid(Path("affinity"), absl::StrFormat("got %d, expected GATE, SHARE or COSINE",
                                                       static_cast<int>(m.affinity())));
    }
    return CheckPolicy();
  }

  // What one policy wants of its settings.
  absl::Status CheckPolicy() {
    const Bounded& m = message_;
    const ModelDescription& model = facts_.model;
    if (m.coverage() && model.has_shared_expert) {
      return Invalid(Path("coverage"),
                     "true, expected false: the shared expert covers every token");
    }
    if (Is("switch") && model.top_k != 1) {
      return Invalid(Path("policy"),
                     absl::StrFormat("switch routes to one expert, this model to %d", model.top_k));
    }
    if (Is("switch") && (m.reroute() != 0 || m.isolation() != Bounded::BLOCK))
      return Invalid(path_, "policy switch drops: expected isolation BLOCK and reroute 0");
    if (Is("locmoe") && !m.has_capacity()) {
      return Invalid(Path("capacity"), "not set, expected the frozen capacity of policy locmoe");
    }
    if (Is("token_choice") &&
        (m.has_expert_factor() || m.has_capacity() || m.has_device_factor())) {
      return Invalid(Path("policy"), "token_choice bounds nothing: leave its bounds out");
    }
    if (!in_blocks()) return absl::OkStatus();
    if (!m.has_expert_factor() && !m.has_capacity()) {
      return Invalid(Path("expert_factor"),
                     "not set, expected it or capacity: blocks have no other");
    }
    const int64_t block = m.block_tokens();
    if (block < 1 || block % facts_.block_tokens != 0 || block > facts_.max_chunk_tokens) {
      return Invalid(Path("block_tokens"),
                     absl::StrFormat("got %d, expected a multiple of the KV block's %d tokens, at "
                                     "most %d: --max-step-tokens less --max-sequences",
                                     block, facts_.block_tokens, facts_.max_chunk_tokens));
    }
    return absl::OkStatus();
  }

  TokenMode ModeOf() const {
    if (shared_) return TokenMode::kShared;
    switch (message_.isolation()) {
      case Bounded::BLOCK:
        return TokenMode::kBlock;
      case Bounded::BLOCK_CAUSAL:
        return TokenMode::kBlockCausal;
      default:
        return TokenMode::kThreshold;
    }
  }

  RoutingPolicy PolicyOf() const {
    const Bounded& m = message_;
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
    if (m.has_theory() && layer_theory_.empty()) {
      capacity.theory = TheoryFloor{.effective_dim = m.theory().effective_dimension(),
                                    .delta = m.theory().delta()};
    }
    capacity.eager = m.eager();
    if (in_blocks()) policy.block_tokens = m.block_tokens();
    if (Is("switch")) policy.order = PairOrder::kArrival;
    policy.reroute = m.reroute();
    policy.reroute_ratio = m.reroute_ratio();
    policy.coverage = m.coverage();
    policy.renormalise_after_drop = m.renormalise();
    policy.max_renormalisation = static_cast<float>(m.max_renormalisation());
    return policy;
  }

  PolicyLimits Limits() const {
    return {.num_experts = facts_.model.num_experts,
            .has_shared_expert = facts_.model.has_shared_expert};
  }

  // The policy of every layer, by what the calibration measured there.
  absl::Status TakeLayerTheory(PinnedPolicy& pinned) const {
    for (size_t i = 0; i < layer_theory_.size(); ++i) {
      RoutingPolicy& of_layer = pinned.layer_policies.emplace_back(pinned.policy);
      if (pinned.layer_exempt[i] != 0) continue;
      of_layer.capacity.theory = layer_theory_[i];
      const absl::Status valid = ValidatePolicy(of_layer, Limits());
      if (valid.ok()) continue;
      return Invalid(Path("theory"),
                     absl::StrFormat("the calibration's of layer %d: %s",
                                     facts_.model.moe_layers[i], std::string(valid.message())));
    }
    return absl::OkStatus();
  }

  // The place of a layer among the MoE layers.
  absl::StatusOr<size_t> LayerIdx(const std::string& path, int32_t layer) const {
    const std::vector<int32_t>& layers = facts_.model.moe_layers;
    const auto found = std::find(layers.begin(), layers.end(), layer);
    if (found != layers.end()) return static_cast<size_t>(found - layers.begin());
    return Invalid(path, absl::StrFormat("got %d, expected one of ModelInfo.moe_layers", layer));
  }

  absl::Status ReadExempt(std::vector<uint8_t>& exempt) const {
    exempt.assign(facts_.model.moe_layers.size(), 0);
    const auto& layers = message_.exempt_layers().layers();
    for (int i = 0; i < layers.size(); ++i) {
      const std::string path = Path(absl::StrFormat("exempt_layers.layers[%d]", i));
      GATEHOUSE_ASSIGN_OR_RETURN(const size_t layer_idx, LayerIdx(path, layers[i]));
      exempt[layer_idx] = 1;
    }
    return absl::OkStatus();
  }

  absl::Status ReadThresholds(PinnedPolicy& pinned) const {
    const auto& lists = message_.thresholds();
    if (!Is("threshold")) {
      if (!lists.empty())
        return Invalid(Path("thresholds"), "set, expected only of policy threshold");
      if (pinned.mode != TokenMode::kThreshold) return absl::OkStatus();
    }
    const auto num_experts = static_cast<size_t>(facts_.model.num_experts);
    // Below every affinity: nothing is dropped.
    pinned.thresholds.assign(
        facts_.model.moe_layers.size(),
        std::vector<float>(num_experts, -std::numeric_limits<float>::infinity()));
    std::vector<uint8_t> is_given(pinned.thresholds.size(), 0);
    for (int i = 0; i < lists.size(); ++i) {
      const std::string path = Path(absl::StrFormat("thresholds[%d]", i));
      GATEHOUSE_ASSIGN_OR_RETURN(const size_t idx, LayerIdx(path + ".layer", lists[i].layer()));
      if (is_given[idx] != 0) {
        return Invalid(path + ".layer", absl::StrFormat("%d is given twice", lists[i].layer()));
      }
      is_given[idx] = 1;
      pinned.thresholds[idx].assign(lists[i].experts().begin(), lists[i].experts().end());
      const absl::Status valid =
          ValidateThresholds(pinned.thresholds[idx], facts_.model.num_experts);
      if (!valid.ok()) return Invalid(path + ".experts", std::string(valid.message()));
    }
    for (size_t i = 0; Is("threshold") && i < is_given.size(); ++i) {
      if (is_given[i] != 0 || pinned.layer_exempt[i] != 0) continue;
      return Invalid(
          Path("thresholds"),
          absl::StrFormat("none for layer %d, expected %d for each layer that is not exempt",
                          facts_.model.moe_layers[i], num_experts));
    }
    return absl::OkStatus();
  }

  const RoutingFacts& facts_;
  const std::string path_;
  const bool shared_;
  Bounded& message_;
  const NamedPolicy* policy_ = nullptr;
  std::vector<TheoryFloor> layer_theory_;  // [num_moe_layers] of the calibration; empty: message_'s
};

absl::StatusOr<ExpertPlacement> ReadDevices(v1::ExpertDevices& devices, int num_experts) {
  if (!devices.has_count()) devices.set_count(1);
  const int count = devices.count();
  GATEHOUSE_RETURN_IF_ERROR(CheckIn("devices.count", count, {1, double(std::max(num_experts, 1))}));
  ExpertPlacement placement = LinearPlacement(num_experts, count);
  if (devices.expert_device_size() != 0) {
    if (devices.expert_device_size() != num_experts) {
      return Invalid("devices.expert_device",
                     absl::StrFormat("got %d, expected one for each of %d experts",
                                     devices.expert_device_size(), num_experts));
    }
    for (int e = 0; e < num_experts; ++e) {
      const int32_t device = devices.expert_device(e);
      GATEHOUSE_RETURN_IF_ERROR(
          CheckIn(absl::StrFormat("devices.expert_device[%d]", e), device, {0, double(count - 1)}));
      placement.copy_devices[static_cast<size_t>(e)] = device;
    }
  }
  if (devices.throughput_size() == 0) return placement;
  if (devices.throughput_size() != count) {
    return Invalid("devices.throughput",
                   absl::StrFormat("got %d, expected one for each of %d devices",
                                   devices.throughput_size(), count));
  }
  for (int d = 0; d < count; ++d) {
    GATEHOUSE_RETURN_IF_ERROR(CheckIn(absl::StrFormat("devices.throughput[%d]", d),
                                      devices.throughput(d), {0, 1e15, true}));
    placement.throughput[static_cast<size_t>(d)] = devices.throughput(d);
  }
  return placement;
}

absl::Status CheckModeName(const char* field, v1::Routing::Mode mode) {
  if (mode >= v1::Routing::EXACT && mode <= v1::Routing::SHARED) return absl::OkStatus();
  return Invalid(
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
  if (!read.ok()) return Invalid(file, std::string(read.message()));
  return policy;
}

absl::StatusOr<RoutingTable> ToRoutingTable(const RoutingFacts& facts, v1::RoutingPolicy& policy) {
  if (!policy.has_default_mode()) policy.set_default_mode(v1::Routing::EXACT);
  if (!policy.has_loosest_mode()) policy.set_loosest_mode(v1::Routing::SHARED);
  GATEHOUSE_RETURN_IF_ERROR(CheckModeName("default_mode", policy.default_mode()));
  GATEHOUSE_RETURN_IF_ERROR(CheckModeName("loosest_mode", policy.loosest_mode()));
  if (policy.default_mode() > policy.loosest_mode()) {
    return Invalid("default_mode", absl::StrFormat("got %s, loosest_mode allows %s",
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
    return Invalid("default_mode", absl::StrFormat("got %s, for which there is no policy",
                                                   v1::Routing::Mode_Name(policy.default_mode())));
  }
  if (!policy.has_isolated() && !policy.has_shared() && !policy.has_devices()) return table;
  if (facts.model.num_experts == 0) {
    return absl::FailedPreconditionError("isolated, shared: this model has no experts to bound");
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const ExpertPlacement placement,
                             ReadDevices(*policy.mutable_devices(), facts.model.num_experts));
  if (policy.has_isolated()) {
    BoundedConverter converter(facts, "isolated", false, *policy.mutable_isolated());
    GATEHOUSE_ASSIGN_OR_RETURN(table.isolated, converter.Convert(placement, table.version));
  }
  if (policy.has_shared()) {
    BoundedConverter converter(facts, "shared", true, *policy.mutable_shared());
    GATEHOUSE_ASSIGN_OR_RETURN(table.shared, converter.Convert(placement, table.version));
  }
  return table;
}

}  // namespace gatehouse
