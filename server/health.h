// Whether the server serves, judged from outside the engine: an engine that hangs cannot say so.
#pragma once

#include <atomic>
#include <string>

#include "engine/engine.h"
#include "kernels/base/mutex.h"
#include "server/limits.h"
#include "server/prometheus_metrics.h"

namespace gatehouse {

struct HealthReport {
  EngineState state = EngineState::kLoading;
  std::string reason;  // why it does not serve; empty when it does
  bool serving() const { return state == EngineState::kServing; }
};

// {"ready":false,"state":"stalled","reasons":["..."]}
std::string ReadyJson(const HealthReport& report);

// What all listeners know of the engine. Thread-safe.
class ServingState {
 public:
  // Null while the model is loaded; afterwards the engine outlives the listeners.
  Engine* engine() const { return engine_.load(std::memory_order_acquire); }
  void SetEngine(Engine& engine) { engine_.store(&engine, std::memory_order_release); }
  // How a call ends that needs the engine while there is none.
  static absl::Status LoadingError() {
    return absl::UnavailableError("the model is being loaded, no requests are taken yet");
  }

  HealthReport health() const GATEHOUSE_EXCLUDES(mutex_);
  HealthReport Exchange(HealthReport report) GATEHOUSE_EXCLUDES(mutex_);  // returns the one before

 private:
  std::atomic<Engine*> engine_ = nullptr;
  mutable Mutex mutex_;
  HealthReport health_ GATEHOUSE_GUARDED_BY(mutex_){.reason = "the model is being loaded"};
};

// What a refused client of the tenant should wait: the engine's guess, a second while there is
// none.
Duration RetryAfter(const ServingState& state, const std::string& tenant);

// Asked again and again by one thread.
class ProgressJudge {
 public:
  explicit ProgressJudge(const ServerLimits& limits) : limits_(limits) {}

  // Stalled: there has been work and no step has ended for longer than stall_seconds and than
  // stall_step_factor of the longest recent step (0: there was none yet). An engine that was idle
  // for an hour and just got work is not: work_since_ is when the judge first saw work.
  HealthReport Judge(const EngineStatus& status, double longest_step_seconds, TimePoint now);

 private:
  const ServerLimits limits_;
  bool had_work_ = false;
  TimePoint work_since_{};
};

}  // namespace gatehouse
