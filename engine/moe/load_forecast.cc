#include "engine/moe/load_forecast.h"

#include <cmath>

#include "absl/strings/str_format.h"

namespace gatehouse {
namespace {

constexpr int64_t kMaxCount = int64_t{1} << 53;  // whole numbers are exact in fp64 up to here

}  // namespace

absl::StatusOr<LoadForecast> LoadForecast::Make(int num_layers, int num_experts,
                                                double half_life_pairs) {
  if (num_layers < 1 || num_experts < 1) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "got %d layers of %d experts, expected at least one of each", num_layers, num_experts));
  }
  if (!(half_life_pairs >= 1) || !std::isfinite(half_life_pairs)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("half-life: got %g pairs, expected at least 1", half_life_pairs));
  }
  return LoadForecast(num_layers, num_experts, half_life_pairs);
}

LoadForecast::LoadForecast(int num_layers, int num_experts, double half_life_pairs)
    : num_experts_(num_experts),
      half_life_pairs_(half_life_pairs),
      num_pairs_(num_layers, 0),
      loads_(num_layers, std::vector<double>(num_experts, 0)) {}

absl::Status LoadForecast::Add(int layer, std::span<const int64_t> counts) {
  if (layer < 0 || layer >= num_layers()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("layer: got %d, expected 0 to %d", layer, num_layers() - 1));
  }
  if (counts.size() != static_cast<size_t>(num_experts_)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("got counts of %d experts, expected %d", counts.size(), num_experts_));
  }
  double added = 0;
  for (size_t e = 0; e < counts.size(); ++e) {
    if (counts[e] < 0 || counts[e] > kMaxCount) {
      return absl::InvalidArgumentError(
          absl::StrFormat("pairs of expert %d: got %d, expected 0 to %d", e, counts[e], kMaxCount));
    }
    added += static_cast<double>(counts[e]);
  }
  const double decay = std::exp2(-added / half_life_pairs_);
  num_pairs_[layer] = num_pairs_[layer] * decay + added;
  for (size_t e = 0; e < counts.size(); ++e) {
    loads_[layer][e] = loads_[layer][e] * decay + static_cast<double>(counts[e]);
  }
  return absl::OkStatus();
}

std::vector<double> LoadForecast::Shares(int layer) const {
  std::vector<double> shares = loads_[layer];
  for (double& share : shares) share /= num_pairs_[layer] > 0 ? num_pairs_[layer] : 1;
  return shares;
}

}  // namespace gatehouse
