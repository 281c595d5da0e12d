// Where the experts of each layer lie while a trace is routed again: placed once, knowing what the
// whole trace asks for, or moved as it goes by what was asked so far.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/moe/expert_placement.h"
#include "engine/moe/load_forecast.h"
#include "engine/moe/rebalance.h"

namespace gatehouse {

// Pairs that each expert was asked for: [num_moe_layers][num_experts].
using LayerLoads = std::vector<std::vector<int64_t>>;

struct PlacementChoice {
  // linear, round-robin; eplb, balanced: by the loads of the whole trace; rebalanced: linear at
  // first, then by what was asked so far.
  std::string_view name;
  int num_replicas = 0;  // copies beyond the first: eplb, balanced, rebalanced
  // rebalanced: how often a plan is made, and of how many pairs the forecast forgets half, which
  // are also those that it is believed for.
  int64_t rebalance_steps = 100;
  double half_life_pairs = kLoadHalfLifePairs;
};
// A value; one thread at a time.
class LayerPlacements {
 public:
  // The same in every layer, for good.
  LayerPlacements(const ExpertPlacement& placement, int num_layers)
      : layers_(num_layers, placement) {}
  // Devices with that throughput and as many slots each as the copies need. `loads` are those of
  // the trace. INVALID_ARGUMENT for another name and for copies that cannot be.
  static absl::StatusOr<LayerPlacements> Make(const PlacementChoice& choice,
                                              const std::vector<double>& throughput,
                                              const LayerLoads& loads);

  std::span<const ExpertPlacement> layers() const { return layers_; }
  int num_devices() const { return layers_.front().num_devices; }

  // After a step that asked for `loads`: where it is time, what is worth it moves, at once and for
  // nothing. Between two plans `layers()` stays what it is.
  absl::Status Add(const LayerLoads& loads);

  int64_t num_rebalances() const { return num_rebalances_; }  // of one layer each
  int64_t num_moves() const { return num_moves_; }            // copies made
  double mean_predicted_gain() const;                         // of those rebalances

 private:
  std::vector<ExpertPlacement> layers_;  // [num_moe_layers]
  // Where experts move, else empty:
  std::optional<LoadForecast> forecast_;
  PlacementProblem problem_;  // but for its loads
  RebalancePolicy policy_;
  int64_t rebalance_steps_ = 0, num_steps_ = 0;
  int64_t num_rebalances_ = 0, num_moves_ = 0;
  double predicted_gain_ = 0;  // sum
};

}  // namespace gatehouse
