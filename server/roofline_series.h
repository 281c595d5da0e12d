// The metrics of what steps had to do at least (engine/model/step_cost.h) against what the machine
// can do at most: names, help and labels stand in the table of roofline_series.cc.
//
// Owner: the model's series; OnStep is called by the engine loop alone.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <string>
#include <vector>

#include "engine/step_stats.h"
#include "kernels/machine_limits.h"

namespace gatehouse {

class RooflineSeries {
 public:
  // One series a phase, by the phase's index. Limits of 0 were not measured: no share is shown.
  RooflineSeries(const MachineLimits& limits, const std::vector<std::string>& phases,
                 prometheus::Registry& registry);
  void OnStep(size_t phase_idx, const StepStats& stats);

 private:
  struct PhaseSeries {
    prometheus::Counter* bound_seconds = nullptr;
    prometheus::Gauge* ratio = nullptr;  // null: limits not measured
  };

  const MachineLimits limits_;
  prometheus::Counter& dense_bytes_;
  prometheus::Counter& expert_bytes_;
  prometheus::Counter& kv_bytes_;
  prometheus::Counter& float_operations_;
  prometheus::Counter& integer_operations_;
  std::vector<PhaseSeries> phases_;
};

}  // namespace gatehouse
