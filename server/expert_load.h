// How tokens were spread over experts, and what bounds did to them: the only place where they are
// counted. /metrics and the Admin service read it; the engine loop writes it, once a step.
//
//   load.Add(stats.layer_loads, stats.time);       // engine loop
//   for (const LayerLoadCounts& layer : load.Read()) ...   // any thread
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "engine/step_stats.h"
#include "kernels/base/clock.h"
#include "kernels/base/mutex.h"

namespace gatehouse {

struct LayerLoadCounts {
  int32_t layer = 0;                   // index in the model, dense layers counted
  std::vector<int64_t> expert_tokens;  // [num_experts], since the start
  // Most loaded expert over the mean, over the window in progress and the one before: 10 to 20 s of
  // steps, refreshed each second. 1 is even; 0: no tokens yet.
  double imbalance = 0;
  // Since the start, by the mode of the tokens.
  ModeReports reports;
  std::vector<int64_t> expert_rerouted;  // [num_experts], since the start; empty: none
  std::vector<int64_t> expert_dropped;   // likewise
  std::vector<int64_t> expert_received;  // likewise
  std::array<int64_t, kNumEvictionCauses> rerouted{};  // by why they were evicted
  std::array<int64_t, kNumEvictionCauses> dropped{};
  // Of the last step with tokens in shared mode or blocks: places [num_experts] (kNoBound: not
  // bounded; empty: there was no such step).
  std::vector<int64_t> expert_capacity;
  double device_usage = 0;  // most loaded device over its budget, of the last step with one
  // Since the start.
  std::array<int64_t, kNumBoundCauses> causes{};  // experts by what bound them
  int64_t pressure = 0;
  std::vector<int64_t> device_budgets;  // [num_devices]; empty: none had one
  std::vector<int64_t> device_loads;    // likewise
};

class ExpertLoad {
 public:
  ExpertLoad(const std::vector<int32_t>& moe_layers, int32_t num_experts);

  // Returns how many experts of all layers got a token.
  int64_t Add(const std::vector<LayerLoad>& loads, TimePoint now) GATEHOUSE_EXCLUDES(mutex_);
  std::vector<LayerLoadCounts> Read() const GATEHOUSE_EXCLUDES(mutex_);

 private:
  struct Layer {
    LayerLoadCounts counts;
    std::vector<int64_t> window_tokens;           // [num_experts], since window_begin_
    std::vector<int64_t> previous_window_tokens;  // [num_experts], of the window before
  };

  void UpdateImbalance(TimePoint now) GATEHOUSE_REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::vector<Layer> layers_ GATEHOUSE_GUARDED_BY(mutex_);  // in the order of moe_layers
  std::vector<int32_t> layer_to_slot_;                      // by model layer; -1: dense
  TimePoint window_begin_ GATEHOUSE_GUARDED_BY(mutex_){};
  TimePoint imbalance_time_ GATEHOUSE_GUARDED_BY(mutex_){};
};

}  // namespace gatehouse
