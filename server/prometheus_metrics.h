// Every metric of the server: names, help and labels stand in the table of prometheus_metrics.cc,
// those of experts and routing in that of expert_series.cc, those of limits in roofline_series.cc.
//
// Owner: main; outlives the engine, whose loop alone calls the StepObserver methods. SetModel makes
// the series of the model: once, before the first request. Everything else may be called by any
// thread at any time. Labels take values from closed sets only: nothing a client sends becomes one;
// the names of tenants come from the operator's file.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/engine.h"
#include "engine/step_stats.h"
#include "kernels/base/mutex.h"
#include "kernels/machine_limits.h"
#include "server/exchange_series.h"
#include "server/expert_load.h"

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

// Since the start, as GetStatus shows them.
struct EngineTotals {
  int64_t num_prompt_tokens = 0;         // computed
  int64_t num_cached_prompt_tokens = 0;  // taken from the prefix cache
  int64_t num_generated_tokens = 0;
  int64_t num_steps = 0;
  int64_t num_ended_requests = 0;
  int64_t num_preemptions = 0;
  double weight_bytes = 0;  // read by steps
  double step_seconds = 0;
};

// What is read again while the server runs; a label of the reload metrics.
enum class ReloadedFile { kTls, kTenants, kAdminTls, kAdminTokens };
inline constexpr int kNumReloadedFiles = 4;
const char* ReloadedFileName(ReloadedFile file);  // tls

class PrometheusMetrics final : public StepObserver {
 public:
  // `level`: absent: 2 while layers * experts <= 2,048, else 1.
  PrometheusMetrics(const BuildDescription& build, std::optional<int> level);
  ~PrometheusMetrics() override;

  // Limits of 0 were not measured.
  void SetModel(const ModelDescription& model, const MachineLimits& limits = {},
                const ExchangeGroup& group = {});
  void SetState(EngineState state);
  // Between steps: what an idle engine would otherwise leave at its last step's values.
  void SetStatus(const EngineStatus& status);
  void SetRebalance(const RebalanceStatus& status);
  void CountRequest(RpcMethod method, absl::StatusCode code);
  void CountReload(ReloadedFile file, bool ok);
  // When the first certificate of the listener expires, Unix time.
  void SetCertificateExpiry(ReloadedFile file, double unix_seconds);

  void SetQueueLimits(int32_t num_requests, int64_t num_tokens);
  void SetRoutingPolicyVersion(int64_t version);

  EngineTotals Totals() const GATEHOUSE_EXCLUDES(mutex_);
  // The longest step of the last 10 to 20 minutes; 0: there was none.
  double LongestStepSeconds() const GATEHOUSE_EXCLUDES(mutex_);
  // Empty before SetModel.
  std::vector<LayerLoadCounts> ReadExpertLoad() const;

  // StepObserver
  void OnStep(const StepStats& stats) override;
  void OnToken(double inter_token_seconds) override;
  void OnFirstToken(double time_to_first_token_seconds) override;
  void OnRequestEnd(const RequestStats& stats) override;
  void OnShadow(const ShadowStats& stats) override;
  void OnRegroup(const Membership& membership, double seconds) override;

  std::string Scrape() const;  // Prometheus text format 0.0.4

 private:
  struct ModelSeries;
  struct QueueGauges;

  void SetLoad(const PriorityCounts& counts, int64_t num_kv_blocks_used,
               int64_t num_kv_blocks_total);
  QueueGauges GaugesOf(const std::string& tenant);

  const std::optional<int> wanted_level_;
  const std::shared_ptr<prometheus::Registry> registry_;

  std::array<prometheus::Gauge*, kNumEngineStates> states_{};
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Family<prometheus::Counter>& reloads_;
  std::unique_ptr<ModelSeries> owned_model_;
  std::atomic<ModelSeries*> model_ = nullptr;  // set once by SetModel, immutable afterwards

  mutable Mutex mutex_;
  std::set<std::string> busy_tenants_ GATEHOUSE_GUARDED_BY(mutex_);  // at the last SetStatus
  EngineTotals totals_
      GATEHOUSE_GUARDED_BY(mutex_);  // but num_generated_tokens, which a series has
  TimePoint longest_begin_ GATEHOUSE_GUARDED_BY(mutex_){};
  double longest_step_ GATEHOUSE_GUARDED_BY(mutex_) = 0;           // seconds, since longest_begin_
  double previous_longest_step_ GATEHOUSE_GUARDED_BY(mutex_) = 0;  // of the window before
};

}  // namespace gatehouse
