// The metrics of how experts move between ranks (engine/rebalance_status.h): names, help and labels
// stand in the table of rebalance_series.cc. Of one rank there are none.
//
// Owner: the model's series; Set is called by the watcher alone, several times a second. Whatever
// happens between two calls counts once it is seen: a rebalance that was followed by another before
// anybody looked is not counted.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <array>
#include <cstdint>

#include "engine/rebalance_status.h"

namespace gatehouse {

class RebalanceSeries {
 public:
  RebalanceSeries(int num_ranks, prometheus::Registry& registry);
  // `unix_seconds`: now.
  void Set(const RebalanceStatus& status, double unix_seconds);

 private:
  enum Result { kMoved, kUnchanged, kInterrupted, kRolledBack, kNumResults };
  static constexpr int kNumStates = 5;

  void Count(Result result, double unix_seconds);

  std::array<prometheus::Gauge*, kNumStates> states_{};  // null: there is one rank
  std::array<prometheus::Counter*, kNumResults> results_{};
  prometheus::Counter* copies_ = nullptr;
  prometheus::Gauge* imbalance_ = nullptr;
  prometheus::Gauge* planned_imbalance_ = nullptr;
  prometheus::Gauge* obtained_imbalance_ = nullptr;
  prometheus::Gauge* last_change_ = nullptr;
  int64_t last_id_ = 0;
  RebalanceState last_state_ = RebalanceState::kIdle;
};

}  // namespace gatehouse
