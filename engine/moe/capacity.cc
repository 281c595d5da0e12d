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

Places ExpertCeiling(const CapacityPolicy& policy, const DomainLoad& load, int num_experts) {
  if (policy.capacity.has_value()) return {*policy.capacity, BoundCause::kFixed};
  if (!policy.factor.has_value()) return {};
  if (load.switch_tokens < policy.min_tokens ||
      static_cast<double>(load.switch_pairs) < policy.min_mean_load * num_experts) {
    return {};
  }
  const double pairs = static_cast<double>(load.num_pairs);
  Places ceiling{CeilNear(*policy.factor * pairs / num_experts), BoundCause::kFactor};
  if (policy.zeta.has_value()) {
    const double mean = pairs / num_experts;
    const int64_t spread = CeilNear(mean + *policy.zeta * std::sqrt(mean));
    if (spread > ceiling.count) ceiling = {spread, BoundCause::kZeta};
  }
  if (ceiling.count > kNoBound - policy.tile) return {};
  ceiling.count = (ceiling.count + policy.tile - 1) / policy.tile * policy.tile;
  return ceiling;
}

Places ExpertFloor(const CapacityPolicy& policy, std::span<const float> affinities, int64_t ceiling,
                   int64_t num_tokens, int num_experts) {
  Places floor{.count = 0};
  const auto raise = [&floor](int64_t count, BoundCause cause) {
    if (count >= floor.count) floor = {count, cause};
  };
  if (policy.ecr_error.has_value()) {
    raise(CeilNear(16.0 / 3.0 * std::log(1 / *policy.ecr_error)), BoundCause::kEcr);
  }
  if (policy.affinity_mass.has_value()) {
    raise(MassFloor(*policy.affinity_mass, affinities), BoundCause::kMass);
  }
  if (policy.theory.has_value()) {
    const int64_t most = ceiling == kNoBound ? num_tokens : ceiling;
    raise(TheoryFloorOf(*policy.theory, most, num_experts), BoundCause::kTheory);
  }
  return floor;
}

Places ExpertPlaces(const CapacityPolicy& policy, Places ceiling, Places floor, int64_t rows) {
  Places places = ceiling;
  if (policy.eager && ceiling.count != kNoBound && floor.count < ceiling.count) {
    places = {std::min(ceiling.count, std::max<int64_t>(floor.count, 1)), floor.cause};
  }
  if (rows < places.count) places = {rows, BoundCause::kMemory};
  return places;
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
