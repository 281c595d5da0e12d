#include "engine/moe/capacity.h"

#include <algorithm>
#include <cmath>

namespace gatehouse {
namespace {

// The smallest count of leading affinities whose sum, negative ones counted as 0, is the share
// `mass` of the whole. The tolerance keeps a share of 1 from asking for pairs that add nothing.
int64_t MassFloor(double mass, std::span<const float> affinities) {
  double total = 0;
  for (const float a : affinities) total += std::max(a, 0.0f);
  if (total == 0) return 0;
  const double wanted = (mass - 1e-6) * total;
  double sum = 0;
  int64_t count = 0;
  for (const float a : affinities) {
    if (sum >= wanted) break;
    sum += std::max(a, 0.0f);
    ++count;
  }
  return count;
}

int64_t TheoryFloorOf(const TheoryFloor& theory, int64_t most, int num_experts) {
  if (most == 0) return 0;
  const double d2 = theory.delta * theory.delta;
  const double log_floor = theory.effective_dim * d2 / (2 - d2) - std::log(num_experts);
  if (log_floor >= std::log(static_cast<double>(most))) return most;
  return std::min(most, std::max<int64_t>(1, CeilNear(std::exp(log_floor))));
}

}  // namespace

int64_t CeilNear(double x) {
  const double nearest = std::round(x);
  const double result =
      std::abs(x - nearest) <= 1e-9 * std::max(1.0, std::abs(x)) ? nearest : std::ceil(x);
  return result >= 9.2e18 ? kNoBound : static_cast<int64_t>(result);
}

int64_t ExpertCeiling(const CapacityPolicy& policy, const DomainLoad& load, int num_experts) {
  if (policy.capacity.has_value()) return *policy.capacity;
  if (!policy.factor.has_value()) return kNoBound;
  if (load.switch_tokens < policy.min_tokens ||
      static_cast<double>(load.switch_pairs) < policy.min_mean_load * num_experts) {
    return kNoBound;
  }
  const double pairs = static_cast<double>(load.num_pairs);
  int64_t ceiling = CeilNear(*policy.factor * pairs / num_experts);
  if (policy.zeta.has_value()) {
    const double mean = pairs / num_experts;
    ceiling = std::max(ceiling, CeilNear(mean + *policy.zeta * std::sqrt(mean)));
  }
  if (ceiling > kNoBound - policy.tile) return kNoBound;
  return (ceiling + policy.tile - 1) / policy.tile * policy.tile;
}

int64_t ExpertFloor(const CapacityPolicy& policy, std::span<const float> affinities,
                    int64_t ceiling, int64_t num_tokens, int num_experts) {
  int64_t floor = 0;
  if (policy.ecr_error.has_value()) {
    floor = std::max(floor, CeilNear(16.0 / 3.0 * std::log(1 / *policy.ecr_error)));
  }
  if (policy.affinity_mass.has_value()) {
    floor = std::max(floor, MassFloor(*policy.affinity_mass, affinities));
  }
  if (policy.theory.has_value()) {
    const int64_t most = ceiling == kNoBound ? num_tokens : ceiling;
    floor = std::max(floor, TheoryFloorOf(*policy.theory, most, num_experts));
  }
  return floor;
}

int64_t ExpertPlaces(const CapacityPolicy& policy, int64_t ceiling, int64_t floor, int64_t rows) {
  const int64_t places = std::min(ceiling, rows);
  return policy.eager && ceiling != kNoBound ? std::min(places, std::max<int64_t>(floor, 1))
                                             : places;
}

BoundCause CauseOf(int64_t places, int64_t ceiling, int64_t rows) {
  if (places == kNoBound) return BoundCause::kNone;
  if (places == ceiling) return BoundCause::kCeiling;
  return places == rows ? BoundCause::kMemory : BoundCause::kFloor;
}

std::vector<int64_t> DeviceBudgets(const CapacityPolicy& policy, const ExpertPlacement& placement,
                                   int64_t num_pairs, std::span<const int64_t> rows) {
  std::vector<int64_t> budgets(rows.begin(), rows.end());
  if (!policy.device_factor.has_value()) return budgets;
  std::vector<bool> has_expert(placement.num_devices);
  for (const int32_t d : placement.copy_devices) has_expert[d] = true;
  double total = 0;
  for (int d = 0; d < placement.num_devices; ++d) {
    if (has_expert[d]) total += placement.throughput[d];
  }
  for (int d = 0; d < placement.num_devices; ++d) {
    if (!has_expert[d]) continue;
    const double share =
        *policy.device_factor * static_cast<double>(num_pairs) * placement.throughput[d] / total;
    budgets[d] = std::min(budgets[d], CeilNear(share));
  }
  return budgets;
}

}  // namespace gatehouse
