// Numbers of one engine step and of one ended request, for whoever exports them. Values: the engine
// fills them and knows nothing of Prometheus.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/comm/membership.h"
#include "engine/model/step_cost.h"
#include "engine/moe/exchange_call.h"
#include "engine/moe/route_plan.h"
#include "engine/request/routing_mode.h"
#include "engine/request/tenant.h"
#include "kernels/base/clock.h"

namespace gatehouse {

// How the rows of one MoE layer were spread in one step.
struct LayerLoad {
  int layer = 0;                       // index in the model, dense layers counted
  std::vector<int64_t> expert_tokens;  // [num_experts]
  ModeReports reports;                 // of its rows, by mode
  BoundsOutcome bounds;                // lists empty where every row was routed exactly
};
// `tokens` as in StepPlan::routed_tokens.
LayerLoad LayerLoadOf(int layer, const RoutePlan& route, std::span<const RoutedToken> tokens);

struct StepStats {
  TimePoint time{};  // when the step ended
  double duration_seconds = 0;
  int32_t num_prefill_tokens = 0;
  int32_t num_decode_tokens = 0;
  int32_t num_new_prompt_tokens = 0;     // computed, each once whatever was preempted
  int64_t num_cached_prompt_tokens = 0;  // not computed: the cache had them
  int32_t num_running = 0;               // sequences, after the step
  int32_t num_waiting = 0;
  int64_t num_waiting_tokens = 0;
  PriorityCounts priority_counts;
  int64_t num_kv_blocks_used = 0;
  int64_t num_kv_blocks_total = 0;
  int32_t num_preemptions = 0;         // in this step
  std::vector<LayerLoad> layer_loads;  // one a MoE layer
  StepCost cost;                       // zeros after an error
  // [num_ranks]; empty after an error, and where there is one rank.
  std::span<const RankExchanges> exchanges;
};

struct RequestStats {
  absl::Status status;
  int32_t num_prompt_tokens = 0;
  int32_t num_generated_tokens = 0;  // of all outputs
  double queue_seconds = 0;
  double time_to_first_token_seconds = -1;  // < 0: there was none
  double total_seconds = 0;
  std::string tenant;
};

// A bounded request of the shadow-exact sample, replayed or skipped.
struct ShadowStats {
  RoutingMode mode = RoutingMode::kShared;
  bool replayed = false;   // else the others are 0
  int32_t num_tokens = 0;  // whose distributions were compared
  int32_t num_agreed = 0;  // of them: the most likely token is the same
  double kl_nats = 0;      // KL(exact || bounded), summed over them (LumpedKl)
};

// Implemented by the server. Called from the engine loop: be quick, never block.
class StepObserver {
 public:
  virtual ~StepObserver() = default;
  virtual void OnStep(const StepStats& stats) = 0;
  virtual void OnToken(double inter_token_seconds) = 0;  // not for an output's first
  virtual void OnFirstToken(double time_to_first_token_seconds) = 0;
  virtual void OnRequestEnd(const RequestStats& stats) = 0;
  virtual void OnShadow(const ShadowStats& /*stats*/) {}
  // Ranks have formed another group, which took so long: some were lost, or have come back.
  virtual void OnRegroup(const Membership& /*membership*/, double /*seconds*/) {}
};

}  // namespace gatehouse
