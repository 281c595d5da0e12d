// Placements and policies of worker_convert.h.
#include <optional>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"
#include "server/worker_convert.h"

namespace gatehouse {
namespace {

// An operator sets policies now and then; beyond, both ends begin anew.
constexpr size_t kMaxPolicies = 64;

v1::RankBounds ToProto(const RoutingPolicy& policy) {
  v1::RankBounds message;
  const CapacityPolicy& capacity = policy.capacity;
  if (capacity.capacity) message.set_capacity(*capacity.capacity);
  if (capacity.factor) message.set_factor(*capacity.factor);
  if (capacity.zeta) message.set_zeta(*capacity.zeta);
  message.set_tile(capacity.tile);
  message.set_min_tokens(capacity.min_tokens);
  message.set_min_mean_load(capacity.min_mean_load);
  if (capacity.device_factor) message.set_device_factor(*capacity.device_factor);
  if (capacity.ecr_error) message.set_ecr_error(*capacity.ecr_error);
  if (capacity.affinity_mass) message.set_affinity_mass(*capacity.affinity_mass);
  if (capacity.theory) {
    message.set_theory_dim(capacity.theory->effective_dim);
    message.set_theory_delta(capacity.theory->delta);
  }
  message.set_eager(capacity.eager);
  message.set_rank_local(capacity.rank_local);
  message.set_block_tokens(policy.block_tokens);
  message.set_order(static_cast<int32_t>(policy.order));
  message.set_tier(static_cast<int32_t>(policy.tier));
  message.set_reroute(policy.reroute);
  message.set_reroute_ratio(policy.reroute_ratio);
  message.set_coverage(policy.coverage);
  message.set_renormalise_after_drop(policy.renormalise_after_drop);
  message.set_max_renormalisation(policy.max_renormalisation);
  if (policy.expert_choice) message.set_expert_choice(*policy.expert_choice);
  return message;
}

template <typename T>
std::optional<T> If(bool has, T value) {
  return has ? std::optional<T>(value) : std::nullopt;
}

RoutingPolicy FromProto(const v1::RankBounds& message) {
  RoutingPolicy policy;
  CapacityPolicy& capacity = policy.capacity;
  capacity.capacity = If(message.has_capacity(), int64_t{message.capacity()});
  capacity.factor = If(message.has_factor(), message.factor());
  capacity.zeta = If(message.has_zeta(), message.zeta());
  capacity.tile = message.tile();
  capacity.min_tokens = message.min_tokens();
  capacity.min_mean_load = message.min_mean_load();
  capacity.device_factor = If(message.has_device_factor(), message.device_factor());
  capacity.ecr_error = If(message.has_ecr_error(), message.ecr_error());
  capacity.affinity_mass = If(message.has_affinity_mass(), message.affinity_mass());
  capacity.theory = If(message.has_theory_dim(), TheoryFloor{.effective_dim = message.theory_dim(),
                                                             .delta = message.theory_delta()});
  capacity.eager = message.eager();
  capacity.rank_local = message.rank_local();
  policy.block_tokens = message.block_tokens();
  policy.order = static_cast<PairOrder>(message.order());
  policy.tier = static_cast<PairTier>(message.tier());
  policy.reroute = message.reroute();
  policy.reroute_ratio = message.reroute_ratio();
  policy.coverage = message.coverage();
  policy.renormalise_after_drop = message.renormalise_after_drop();
  policy.max_renormalisation = message.max_renormalisation();
  policy.expert_choice = If(message.has_expert_choice(), message.expert_choice());
  return policy;
}

}  // namespace

v1::ExpertsOnDevices ToProto(const ExpertPlacement& placement) {
  v1::ExpertsOnDevices message;
  message.mutable_copy_begin()->Add(placement.copy_begin.begin(), placement.copy_begin.end());
  message.mutable_copy_devices()->Add(placement.copy_devices.begin(), placement.copy_devices.end());
  message.mutable_throughput()->Add(placement.throughput.begin(), placement.throughput.end());
  return message;
}

absl::StatusOr<ExpertPlacement> FromProto(const v1::ExpertsOnDevices& message) {
  ExpertPlacement placement{
      .num_devices = message.throughput_size(),
      .copy_begin = {message.copy_begin().begin(), message.copy_begin().end()},
      .copy_devices = {message.copy_devices().begin(), message.copy_devices().end()},
      .throughput = {message.throughput().begin(), message.throughput().end()}};
  const std::vector<int32_t>& begin = placement.copy_begin;
  bool fits = !begin.empty() && begin.front() == 0 && begin.back() == placement.num_copies();
  for (size_t e = 1; e < begin.size(); ++e) fits = fits && begin[e] > begin[e - 1];
  for (const int32_t device : placement.copy_devices) {
    fits = fits && device >= 0 && device < placement.num_devices;
  }
  if (fits) return placement;
  return absl::InternalError(
      absl::StrFormat("a placement of %d copies on %d devices does not fit together",
                      placement.num_copies(), placement.num_devices));
}

v1::RankPolicy ToProto(const PinnedPolicy& policy) {
  v1::RankPolicy message;
  message.set_version(policy.version);
  message.set_name(policy.name);
  message.set_mode(static_cast<int32_t>(policy.mode));
  *message.mutable_policy() = ToProto(policy.policy);
  message.set_affinity(static_cast<int32_t>(policy.affinity));
  *message.mutable_placement() = ToProto(policy.placement);
  for (const RoutingPolicy& layer : policy.layer_policies) {
    *message.add_layer_policies() = ToProto(layer);
  }
  message.set_layer_exempt(std::string(policy.layer_exempt.begin(), policy.layer_exempt.end()));
  for (const std::vector<float>& layer : policy.thresholds) {
    message.add_thresholds()->mutable_values()->Add(layer.begin(), layer.end());
  }
  message.set_bound_decode(policy.bound_decode);
  return message;
}

absl::StatusOr<PinnedPolicy> FromProto(const v1::RankPolicy& message) {
  if (message.mode() < 0 || message.mode() >= kNumTokenModes || message.affinity() < 0 ||
      message.affinity() > static_cast<int32_t>(Affinity::kCosine)) {
    return absl::InternalError(absl::StrFormat("a policy's mode %d or affinity %d is none",
                                               message.mode(), message.affinity()));
  }
  PinnedPolicy policy{.version = message.version(),
                      .name = message.name(),
                      .mode = static_cast<TokenMode>(message.mode()),
                      .policy = FromProto(message.policy()),
                      .affinity = static_cast<Affinity>(message.affinity()),
                      .bound_decode = message.bound_decode()};
  GATEHOUSE_ASSIGN_OR_RETURN(policy.placement, FromProto(message.placement()));
  for (const v1::RankBounds& layer : message.layer_policies()) {
    policy.layer_policies.push_back(FromProto(layer));
  }
  policy.layer_exempt.assign(message.layer_exempt().begin(), message.layer_exempt().end());
  for (const v1::RankThresholds& layer : message.thresholds()) {
    policy.thresholds.emplace_back(layer.values().begin(), layer.values().end());
  }
  return policy;
}

void PolicyNumbers::AddTo(std::span<const PinnedPolicy* const> policies, v1::RankStep& message) {
  if (numbers_.size() + policies.size() > kMaxPolicies && !numbers_.empty()) {
    numbers_.clear();
    message.set_forgets_policies(true);
  }
  for (const PinnedPolicy* const policy : policies) {
    v1::RankPolicy written = ToProto(*policy);
    const auto [known, is_new] =
        numbers_.emplace(written.SerializeAsString(), static_cast<int32_t>(numbers_.size()));
    message.add_policy_ids(known->second);
    if (!is_new) continue;
    written.set_id(known->second);
    *message.add_new_policies() = std::move(written);
  }
}

absl::StatusOr<std::vector<const PinnedPolicy*>> KnownPolicies::Read(const v1::RankStep& message) {
  if (message.forgets_policies()) policies_.clear();
  for (const v1::RankPolicy& added : message.new_policies()) {
    GATEHOUSE_ASSIGN_OR_RETURN(PinnedPolicy policy, FromProto(added));
    policies_[added.id()] = std::make_unique<const PinnedPolicy>(std::move(policy));
  }
  std::vector<const PinnedPolicy*> policies;
  for (const int32_t id : message.policy_ids()) {
    const auto known = policies_.find(id);
    if (known == policies_.end()) {
      return absl::InternalError(absl::StrFormat("a step names policy %d, which never came", id));
    }
    policies.push_back(known->second.get());
  }
  return policies;
}

}  // namespace gatehouse
