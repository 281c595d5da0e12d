// Whether the server serves, judged from outside the engine: an engine that hangs cannot say so.
#pragma once

#include <string>

#include "engine/engine.h"
#include "server/prometheus_metrics.h"

namespace gatehouse {

struct HealthReport {
  EngineState state = EngineState::kLoading;
  std::string reason;  // why it does not serve; empty when it does
  bool serving() const { return state == EngineState::kServing; }
};

// {"ready":false,"state":"stalled","reasons":["..."]}
std::string ReadyJson(const HealthReport& report);

// Asked again and again by one thread.
class ProgressJudge {
 public:
  explicit ProgressJudge(Duration stall_time) : stall_time_(stall_time) {}

  // Stalled: there has been work for stall_time and no step has ended meanwhile. An engine that was
  // idle for an hour and just got work is not: work_since_ is when the judge first saw work.
  HealthReport Judge(const EngineStatus& status, TimePoint now);

 private:
  const Duration stall_time_;
  bool had_work_ = false;
  TimePoint work_since_{};
};

}  // namespace gatehouse
