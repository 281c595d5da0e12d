#include "server/rebalance_series.h"

#include <string>

namespace gatehouse {
namespace {

struct Metric {
  const char* name;
  const char* help;
};
// clang-format off
constexpr Metric kState{"gatehouse_eplb_state", "1 for the state of the last rebalance of experts over ranks."};                        // state
constexpr Metric kRebalances{"gatehouse_eplb_rebalances_total", "Rebalances by what became of them."};                                  // result
constexpr Metric kCopies{"gatehouse_eplb_copies_moved_total", "Copies of experts that rebalances gave to ranks without them."};
constexpr Metric kImbalance{"gatehouse_eplb_imbalance_ratio", "Busiest rank over the mean in the last rebalance; 0: not known."};       // when
constexpr Metric kLastChange{"gatehouse_eplb_last_change_timestamp_seconds", "When experts last went to other ranks; 0: never."};
// clang-format on

constexpr const char* kStateNames[] = {"idle", "planned", "moving", "active", "rolled_back"};
constexpr const char* kResultNames[] = {"moved", "unchanged", "interrupted", "rolled_back"};

prometheus::Family<prometheus::Counter>& Counters(const Metric& metric,
                                                  prometheus::Registry& registry) {
  return prometheus::BuildCounter().Name(metric.name).Help(metric.help).Register(registry);
}
prometheus::Family<prometheus::Gauge>& Gauges(const Metric& metric,
                                              prometheus::Registry& registry) {
  return prometheus::BuildGauge().Name(metric.name).Help(metric.help).Register(registry);
}

}  // namespace

RebalanceSeries::RebalanceSeries(int num_ranks, prometheus::Registry& registry) {
  if (num_ranks == 1) return;
  for (int i = 0; i < kNumStates; ++i) {
    states_[i] = &Gauges(kState, registry).Add({{"state", kStateNames[i]}});
  }
  for (int i = 0; i < kNumResults; ++i) {
    results_[i] = &Counters(kRebalances, registry).Add({{"result", kResultNames[i]}});
  }
  copies_ = &Counters(kCopies, registry).Add({});
  auto& imbalance = Gauges(kImbalance, registry);
  imbalance_ = &imbalance.Add({{"when", "before"}});
  planned_imbalance_ = &imbalance.Add({{"when", "planned"}});
  obtained_imbalance_ = &imbalance.Add({{"when", "obtained"}});
  last_change_ = &Gauges(kLastChange, registry).Add({});
  states_[0]->Set(1);
}

void RebalanceSeries::Set(const RebalanceStatus& status, double unix_seconds) {
  if (states_[0] == nullptr) return;
  for (int i = 0; i < kNumStates; ++i) {
    states_[i]->Set(i == static_cast<int>(status.state) ? 1 : 0);
  }
  imbalance_->Set(status.imbalance);
  planned_imbalance_->Set(status.planned_imbalance);
  obtained_imbalance_->Set(status.obtained_imbalance);
  const bool is_other = status.id != last_id_;
  if (!is_other && status.state == last_state_) return;
  last_id_ = status.id;
  last_state_ = status.state;
  switch (status.state) {
    case RebalanceState::kActive:
      copies_->Increment(status.num_copies);
      return Count(kMoved, unix_seconds);
    case RebalanceState::kRolledBack:
      return Count(kRolledBack, unix_seconds);
    case RebalanceState::kIdle:
      // A rank was lost on the way, or nothing was worth moving.
      return Count(status.num_layers > 0 ? kInterrupted : kUnchanged, unix_seconds);
    case RebalanceState::kPlanned:
    case RebalanceState::kMoving:
      return;
  }
}

void RebalanceSeries::Count(Result result, double unix_seconds) {
  results_[result]->Increment();
  if (result != kUnchanged) last_change_->Set(unix_seconds);
}

}  // namespace gatehouse
