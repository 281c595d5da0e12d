// Every metric of the server: names, help and labels stand in one table in prometheus_metrics.cc.
//
// Owner: main; outlives the engine, whose loop alone calls the StepObserver methods. SetModel makes
// the series of the model: once, before the first request. Everything else may be called by any
// thread at any time. Labels take values from closed sets only:
// nothing a client sends becomes one.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/engine.h"
#include "engine/step_stats.h"

namespace gatehouse {

enum class RpcMethod { kGenerate, kTokenize, kDetokenize, kGetModelInfo, kGetServerInfo };
inline constexpr int kNumRpcMethods = 5;
const char* RpcMethodName(RpcMethod method);  // Generate

enum class EngineState { kLoading, kServing, kDraining, kStalled };
inline constexpr int kNumEngineStates = 4;
const char* EngineStateName(EngineState state);  // loading

struct BuildDescription {
  std::string version;
  std::string backend;
  std::string isa;
};

class PrometheusMetrics final : public StepObserver {
 public:
  // `level`: absent: 2 while layers * experts <= 2,048, else 1.
  PrometheusMetrics(const BuildDescription& build, std::optional<int> level);
  ~PrometheusMetrics() override;

  void SetModel(const ModelDescription& model);
  void SetState(EngineState state);
  // Between steps: what an idle engine would otherwise leave at its last step's values.
  void SetStatus(const EngineStatus& status);
  void CountRequest(RpcMethod method, absl::StatusCode code);

  // StepObserver
  void OnStep(const StepStats& stats) override;
  void OnToken(double inter_token_seconds) override;
  void OnFirstToken(double time_to_first_token_seconds) override;
  void OnRequestEnd(const RequestStats& stats) override;

  std::string Scrape() const;  // Prometheus text format 0.0.4

 private:
  struct LayerSeries {
    std::vector<prometheus::Counter*> expert_tokens;  // [num_experts]; empty below level 2
    prometheus::Gauge* imbalance = nullptr;           // null below level 1
    std::vector<int64_t> window_tokens;               // [num_experts], since window_begin_
    std::vector<int64_t> previous_window_tokens;      // [num_experts], of the window before
  };
  struct ModelSeries;

  void ObserveLayers(const StepStats& stats);
  void UpdateImbalance(TimePoint now);

  const std::optional<int> wanted_level_;
  const std::shared_ptr<prometheus::Registry> registry_;

  std::array<prometheus::Gauge*, kNumEngineStates> states_{};
  std::unique_ptr<ModelSeries> model_;  // made by SetModel, immutable afterwards

  // Touched by the engine loop alone once SetModel has made them.
  std::vector<LayerSeries> layers_;  // by the model's layer index; dense layers stay empty
  TimePoint window_begin_{};
  TimePoint imbalance_time_{};
};

}  // namespace gatehouse
