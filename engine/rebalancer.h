// Where the experts of each layer lie, and how that changes: a state machine that is asked for a
// rebalance, plans it by what the experts were asked to compute, moves layer by layer at step
// borders, then watches what it gained and takes back what it lost by it.
//
//   IDLE --Request--> PLANNED --Advance--> MOVING --Advance, a layer each--> ACTIVE
//                        |                                                     | loads got worse
//                        +--> IDLE: nothing is worth moving                    +--> MOVING back -->
//                        ROLLED_BACK
//
// No step waits for more than one layer's plan or change. Owner: the engine loop, its thread. Pure:
// whoever calls Advance carries the change out.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "engine/comm/membership.h"
#include "engine/moe/expert_placement.h"
#include "engine/moe/load_forecast.h"
#include "engine/moe/rebalance.h"
#include "engine/rebalance_status.h"
#include "engine/step_stats.h"

namespace gatehouse {

class Rebalancer {
 public:
  // One placement for each MoE layer, all of the same ranks.
  explicit Rebalancer(std::vector<ExpertPlacement> placements);

  // FAILED_PRECONDITION: there is one rank or no MoE layer, a rank is lost, or a rebalance is under
  // way.
  // INVALID_ARGUMENT: num_replicas, with both numbers.
  absl::Status Request(const RebalanceOptions& options);
  void OnStep(std::span<const LayerLoad> loads);  // one a MoE layer

  // Whether Advance has something to do.
  bool has_work() const {
    return status_.state == RebalanceState::kPlanned || status_.state == RebalanceState::kMoving;
  }
  // Ranks are lost or have come back: experts whose ranks are all lost go to others, until theirs
  // are back. A rebalance that is under way ends where it stands. The layers whose placement is
  // another from now on.
  std::vector<int> SetMembers(const Membership& membership);
  // At a step border: plans, or changes, one layer. The index of a layer whose placement is another
  // from now on.
  std::optional<int> Advance();

  const std::vector<ExpertPlacement>& placements() const { return placements_; }
  const RebalanceStatus& status() const { return status_; }

 private:
  struct Change {
    int layer_idx = 0;
    ExpertPlacement other;  // that is to be; once moved, that was
  };

  int num_ranks() const { return placements_.front().num_devices; }
  void PlanLayer();
  void EndPlan();
  std::optional<int> MoveLayer();
  void Judge();

  const RebalancePolicy policy_;
  std::vector<ExpertPlacement> wanted_;      // of all ranks
  std::vector<ExpertPlacement> placements_;  // the same among those that are there
  std::vector<int> lost_ranks_;
  std::optional<LoadForecast> forecast_;  // none: no MoE layer
  RebalanceOptions options_;
  RebalanceStatus status_;
  int next_layer_ = 0;           // to plan
  std::vector<Change> changes_;  // of this rebalance, planned or done
  bool moves_back_ = false;
  bool is_judged_ = true;
  std::vector<std::vector<double>> loads_since_;  // [changes][num_experts] since it is active
};

}  // namespace gatehouse
