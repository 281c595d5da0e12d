// Writes what the gates said of every step to a trace file (engine/moe/route_trace.h), up to a
// size. The loop thread observes and hands whole steps over; a thread of its own writes. The loop
// never waits: while the file is slow, whole steps are left out.
#pragma once

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "engine/engine_config.h"
#include "engine/moe/route_trace.h"
#include "engine/moe/step_routing.h"
#include "engine/scheduler/step_plan.h"
#include "kernels/base/mutex.h"

namespace gatehouse {

class RouteRecorder final : public RouteObserver {
 public:
  // FAILED_PRECONDITION when the file cannot be written.
  static absl::StatusOr<std::unique_ptr<RouteRecorder>> Create(const TraceOptions& options,
                                                               const TraceHeader& header);
  ~RouteRecorder() override;  // writes what was handed over

  // Around one step; false from BeginStep: the file is full, there is nothing to observe.
  bool BeginStep(const StepPlan& plan);
  void OnLayer(int moe_layer_idx, const GateScores& scores, const RouteDecision& decision) override;
  void EndStep();

  int num_ranked() const { return header_.num_ranked; }

 private:
  RouteRecorder(std::ofstream file, int64_t max_bytes, const TraceHeader& header);
  void WriteUntilClosed();

  const TraceHeader header_;
  const int64_t max_bytes_;
  std::ofstream file_;  // of the writer, once it runs
  // Of the loop thread.
  TraceStep step_;
  int64_t num_bytes_ = 0;  // handed over

  Mutex mutex_;
  CondVar changed_;
  std::string pending_ GATEHOUSE_GUARDED_BY(mutex_);
  bool closed_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  std::thread writer_;
};

}  // namespace gatehouse
