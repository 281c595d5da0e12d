#include "engine/lab/route_policy.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "absl/strings/str_format.h"

namespace gatehouse {
namespace {

std::optional<double> ReadFactor(RouteSettingsReader& reader, std::string_view name) {
  const std::optional<double> factor = reader.Number(name);
  return factor == std::numeric_limits<double>::infinity() ? std::nullopt : factor;  // no bound
}

CapacityPolicy ReadCapacity(RouteSettingsReader& reader) {
  CapacityPolicy capacity;
  capacity.capacity = reader.Count("capacity");
  capacity.factor = ReadFactor(reader, "gamma");
  capacity.zeta = reader.Number("zeta");
  capacity.tile = reader.Count("tile", 1);
  capacity.min_tokens = reader.Count("t_min", 0);
  capacity.min_mean_load = reader.Number("nbar_min").value_or(reader.Has("nbar_min") ? 0 : 4);
  capacity.device_factor = ReadFactor(reader, "gamma_dev");
  capacity.ecr_error = reader.Number("eps");
  capacity.affinity_mass = reader.Number("tau");
  const std::optional<double> dim = reader.Number("d_eff"), delta = reader.Number("delta");
  if (dim.has_value() || delta.has_value()) {
    constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();
    capacity.theory = {.effective_dim = dim.value_or(kAbsent), .delta = delta.value_or(kAbsent)};
  }
  capacity.eager = reader.Switch("eager", false);
  capacity.rank_local = reader.Switch("rank_local", false);
  return capacity;
}

}  // namespace

TokenMode ReadMode(RouteSettingsReader& reader, TokenMode fallback) {
  return reader.Choice("mode", {"exact", "threshold", "block", "block_causal", "shared"}, fallback);
}

int ReadSize(RouteSettingsReader& reader, std::string_view name, int64_t fallback, int64_t most) {
  const int64_t size = reader.Count(name, fallback);
  if (size >= 0 && size <= most) return static_cast<int>(size);
  reader.Refuse(name, absl::StrFormat("a count from 0 to %d", most));
  return 0;
}

RoutingPolicy ReadRoutingPolicy(RouteSettingsReader& reader, int num_experts,
                                bool family_renormalises) {
  RoutingPolicy policy{.capacity = ReadCapacity(reader)};
  policy.block_tokens = reader.Count("block", 0);
  policy.order =
      reader.Choice("order", {"score", "arrival", "reverse", "random"}, PairOrder::kScore);
  policy.tier = reader.Choice("tier", {"off", "first", "rank"}, PairTier::kOff);
  const int64_t reroute = reader.Count("reroute", 0);
  if (reroute < 0) reader.Refuse("reroute", "a count from 0");
  policy.reroute = static_cast<int>(std::clamp<int64_t>(reroute, 0, num_experts));
  policy.reroute_ratio = reader.Number("rho").value_or(reader.Has("rho") ? 0 : 0.5);
  const bool shared_expert = reader.Switch("shared_expert", false);
  policy.coverage = reader.Switch("coverage", true) && !shared_expert;
  const int after_drop = reader.Choice("after_drop", {"family", "renorm", "leave"}, 0);
  policy.renormalise_after_drop = after_drop == 1 || (after_drop == 0 && family_renormalises);
  policy.max_renormalisation = static_cast<float>(reader.Number("r_max").value_or(2));
  const bool expert_choice = reader.Choice("policy", {"token_choice", "expert_choice"}, 0) == 1;
  const double choice_factor = reader.Number("choice_factor").value_or(2);
  if (expert_choice) policy.expert_choice = choice_factor;
  return policy;
}

std::vector<float> ReadThresholds(RouteSettingsReader& reader, int num_experts) {
  std::vector<float> thresholds = reader.Numbers("thresholds");
  if (thresholds.size() == 1) thresholds.resize(std::max(num_experts, 1), thresholds[0]);
  return thresholds;
}

// `place` 0,0+1,1: the devices of each expert.
ExpertPlacement ReadPlacement(RouteSettingsReader& reader, int num_experts) {
  const int num_devices = std::max(ReadSize(reader, "devices", 1, kMaxRouteDevices), 1);
  ExpertPlacement placement = LinearPlacement(num_experts, num_devices);
  const std::vector<std::string_view> places = reader.Words("place");
  if (!places.empty()) {
    placement.copy_begin = {0};
    placement.copy_devices.clear();
    for (std::string_view place : places) {
      std::vector<int32_t> devices;
      while (!place.empty()) {
        const size_t plus = std::min(place.find('+'), place.size());
        int32_t device = -1;
        const auto [end, error] = std::from_chars(place.data(), place.data() + plus, device);
        const bool whole = error == std::errc() && end == place.data() + plus;
        if (!whole || device < 0 || device >= num_devices) {
          reader.Refuse("place", "device numbers, copies joined by +, experts by commas");
        }
        devices.push_back(device);
        place.remove_prefix(std::min(plus + 1, place.size()));
      }
      std::sort(devices.begin(), devices.end());
      if (devices.empty() || std::adjacent_find(devices.begin(), devices.end()) != devices.end()) {
        reader.Refuse("place", "different devices for the copies of an expert");
      }
      placement.copy_devices.insert(placement.copy_devices.end(), devices.begin(), devices.end());
      placement.copy_begin.push_back(placement.num_copies());
    }
    if (placement.num_experts() != num_experts) reader.Refuse("place", "one entry an expert");
  }
  const std::vector<double> throughput = reader.Reals("throughput");
  if (!throughput.empty()) {
    placement.throughput = throughput;
    if (throughput.size() != static_cast<size_t>(num_devices)) {
      reader.Refuse("throughput", "one number a device");
    }
  }
  return placement;
}

absl::Status CheckThroughput(const ExpertPlacement& placement) {
  for (const double v : placement.throughput) {
    if (!(v > 0) || !std::isfinite(v)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("throughput: got %g, expected a number above 0", v));
    }
  }
  return absl::OkStatus();
}

}  // namespace gatehouse
