#include "engine/moe/routing_policy.h"

#include <cmath>
#include <initializer_list>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

// Factors beyond this are typing errors, and their products stay far below 2^63.
constexpr double kMaxFactor = 1e6;
constexpr int64_t kMaxCount = int64_t{1} << 40;

absl::Status Refuse(const char* name, double value, const char* expected) {
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: got %g, expected %s", name, value, expected));
}

// Written so that NaN is refused.
absl::Status CheckRange(const char* name, double value, double lowest, double highest,
                        const char* expected) {
  return value >= lowest && value <= highest ? absl::OkStatus() : Refuse(name, value, expected);
}

absl::Status CheckFactor(const char* name, std::optional<double> value) {
  if (!value.has_value() || (*value > 0 && *value <= kMaxFactor)) return absl::OkStatus();
  return Refuse(name, *value, "a number above 0, at most 1e6");
}

absl::Status CheckCapacity(const CapacityPolicy& policy) {
  GATEHOUSE_RETURN_IF_ERROR(CheckFactor("gamma", policy.factor));
  GATEHOUSE_RETURN_IF_ERROR(CheckFactor("gamma_dev", policy.device_factor));
  const int64_t capacity = policy.capacity.value_or(0);
  if (capacity != kNoBound) {
    GATEHOUSE_RETURN_IF_ERROR(CheckRange("capacity", static_cast<double>(capacity), 0, kMaxCount,
                                         "a count from 0 to 2^40"));
  }
  GATEHOUSE_RETURN_IF_ERROR(
      CheckRange("zeta", policy.zeta.value_or(0), 0, kMaxFactor, "a number from 0 to 1e6"));
  GATEHOUSE_RETURN_IF_ERROR(
      CheckRange("tile", static_cast<double>(policy.tile), 1, 1 << 20, "a count from 1 to 2^20"));
  GATEHOUSE_RETURN_IF_ERROR(CheckRange("t_min", static_cast<double>(policy.min_tokens), 0,
                                       kMaxCount, "a count from 0 to 2^40"));
  GATEHOUSE_RETURN_IF_ERROR(
      CheckRange("nbar_min", policy.min_mean_load, 0, INFINITY, "a number from 0"));
  if (policy.ecr_error.has_value() && !(*policy.ecr_error > 0 && *policy.ecr_error <= 1)) {
    return Refuse("eps", *policy.ecr_error, "a probability above 0, at most 1");
  }
  GATEHOUSE_RETURN_IF_ERROR(
      CheckRange("tau", policy.affinity_mass.value_or(0), 0, 1, "a share from 0 to 1"));
  if (policy.theory.has_value()) {
    const auto [effective_dim, delta] = *policy.theory;
    if (!(effective_dim > 0 && effective_dim <= kMaxFactor)) {
      return Refuse("d_eff", effective_dim, "a dimension above 0, at most 1e6");
    }
    GATEHOUSE_RETURN_IF_ERROR(CheckRange("delta", delta, 0, 1, "a cosine from 0 to 1"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidatePolicy(const RoutingPolicy& policy, const PolicyLimits& model) {
  GATEHOUSE_RETURN_IF_ERROR(CheckCapacity(policy.capacity));
  GATEHOUSE_RETURN_IF_ERROR(CheckFactor("choice_factor", policy.expert_choice));
  GATEHOUSE_RETURN_IF_ERROR(CheckRange("block", static_cast<double>(policy.block_tokens), 0,
                                       1 << 30, "a count from 1 to 2^30"));
  GATEHOUSE_RETURN_IF_ERROR(CheckRange("reroute", policy.reroute, 0, model.num_experts,
                                       "a count from 0 to the number of experts"));
  GATEHOUSE_RETURN_IF_ERROR(
      CheckRange("rho", policy.reroute_ratio, 0, INFINITY, "a number from 0"));
  if (policy.coverage && model.has_shared_expert) {
    return absl::InvalidArgumentError(
        "coverage: on, expected off: the shared expert covers every token");
  }
  return CheckRange("r_max", policy.max_renormalisation, 1, INFINITY, "a number from 1");
}

absl::Status ValidateThresholds(std::span<const float> thresholds, int num_experts) {
  if (thresholds.size() != static_cast<size_t>(num_experts)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "thresholds: got %d, expected one for each of %d experts", thresholds.size(), num_experts));
  }
  for (const float threshold : thresholds) {
    if (std::isnan(threshold)) return Refuse("thresholds", threshold, "numbers");
  }
  return absl::OkStatus();
}

}  // namespace gatehouse
