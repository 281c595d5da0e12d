// What a rebalance of experts over ranks is asked for, and how it stands (engine/rebalancer.h):
// values.
#pragma once

#include <cstdint>
#include <string>

namespace gatehouse {

struct RebalanceOptions {
  int32_t num_replicas = 0;  // copies beyond the first, of each layer
  bool force = false;        // move however little it gains; still not on chance
};

enum class RebalanceState { kIdle, kPlanned, kMoving, kActive, kRolledBack };

struct RebalanceStatus {
  RebalanceState state = RebalanceState::kIdle;
  int64_t id = 0;          // of the last rebalance asked for; 0: none
  int32_t num_layers = 0;  // that it changes
  int32_t num_moved = 0;   // of them
  int32_t num_copies = 0;  // of experts to ranks that did not have them
  // Busiest rank over the mean, on average over the layers: before and as planned of all, and as it
  // came of those that changed; 0: not known.
  double imbalance = 0;
  double planned_imbalance = 0;
  double obtained_imbalance = 0;
  std::string reason;  // why nothing moves, or why it was taken back
};

}  // namespace gatehouse
