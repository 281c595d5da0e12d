#include "server/prometheus_metrics.h"

#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include "kernels/base/check.h"

namespace gatehouse {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;

// The table. Labels stand behind the help, the model's first.
struct Metric {
  const char* name;
  const char* help;
};
// clang-format off
constexpr Metric kBuildInfo{"gatehouse_build_info", "Always 1; what this server is."};                                                // version, backend, isa
constexpr Metric kEngineState{"gatehouse_engine_state", "1 for the state that the engine is in, 0 for the others."};                  // state
constexpr Metric kModelInfo{"gatehouse_model_info", "Always 1; what is served."};                                                     // model, family, expert_weights, dense_weights
constexpr Metric kRequests{"gatehouse_requests_total", "Calls that have ended, by gRPC status."};                                     // model, method, code
constexpr Metric kRunning{"gatehouse_requests_running", "Requests that take part in steps."};                                         // model
constexpr Metric kWaiting{"gatehouse_requests_waiting", "Requests that wait in the queue."};                                          // model
constexpr Metric kQueueTokens{"gatehouse_queue_tokens", "Prompt tokens of the requests that wait."};                                  // model
constexpr Metric kQueueSeconds{"gatehouse_request_queue_seconds", "Time in the queue, of requests that have ended."};                 // model
constexpr Metric kFirstToken{"gatehouse_time_to_first_token_seconds", "From accepting a request to its first token."};                // model
constexpr Metric kDuration{"gatehouse_request_duration_seconds", "From accepting a request to its end."};                             // model
constexpr Metric kInterToken{"gatehouse_inter_token_seconds", "Between two tokens of one request."};                                  // model
constexpr Metric kPromptTokens{"gatehouse_prompt_tokens_total", "Prompt tokens, computed or taken from the prefix cache."};           // model, source
constexpr Metric kGenerated{"gatehouse_generated_tokens_total", "Tokens generated."};                                                 // model
constexpr Metric kStepSeconds{"gatehouse_step_duration_seconds", "Duration of one engine step."};                                     // phase
constexpr Metric kStepTokens{"gatehouse_step_tokens", "Rows of one engine step."};                                                    // phase
constexpr Metric kKvUsage{"gatehouse_kv_cache_usage_ratio", "Share of the KV cache's blocks in use."};                                //
constexpr Metric kKvBlocks{"gatehouse_kv_blocks", "Blocks of the KV cache."};                                                         // state
constexpr Metric kPreemptions{"gatehouse_preemptions_total", "Times a request gave its KV blocks back to be computed again."};        //
constexpr Metric kExpertTokens{"gatehouse_expert_tokens_total", "Tokens that each expert computed."};                                 // layer, expert
constexpr Metric kImbalance{"gatehouse_expert_load_imbalance_ratio", "Most loaded expert over the mean of the last 10 to 20 s; 1 is even."};  // layer
constexpr Metric kLastStep{"gatehouse_engine_last_step_timestamp_seconds", "When the last step ended, Unix time."};                   //
// clang-format on

constexpr int64_t kMaxExpertSeries = 2048;  // a scrape of 150 KB; more must be asked for
constexpr Duration kImbalanceWindow = std::chrono::seconds(10);
constexpr Duration kImbalancePeriod = std::chrono::seconds(1);

enum Phase { kPrefill, kDecode, kMixed, kNumPhases };
constexpr const char* kPhaseNames[] = {"prefill", "decode", "mixed"};

Histogram::BucketBoundaries RequestBuckets() {
  return {.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 25, 50, 100, 250, 600};
}
Histogram::BucketBoundaries TokenBuckets() {
  return {.0005, .001, .002, .004, .008, .016, .032, .064, .125, .25, .5, 1, 2, 4, 10};
}
Histogram::BucketBoundaries StepBuckets() {
  return {.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10};
}
Histogram::BucketBoundaries RowBuckets() {
  return {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};
}

Family<Counter>& CounterFamily(const Metric& metric, prometheus::Registry& registry) {
  return prometheus::BuildCounter().Name(metric.name).Help(metric.help).Register(registry);
}
Family<Gauge>& GaugeFamily(const Metric& metric, prometheus::Registry& registry) {
  return prometheus::BuildGauge().Name(metric.name).Help(metric.help).Register(registry);
}
Family<Histogram>& HistogramFamily(const Metric& metric, prometheus::Registry& registry) {
  return prometheus::BuildHistogram().Name(metric.name).Help(metric.help).Register(registry);
}

Phase PhaseOf(const StepStats& stats) {
  if (stats.num_prefill_tokens == 0) return kDecode;
  return stats.num_decode_tokens == 0 ? kPrefill : kMixed;
}

}  // namespace

const char* RpcMethodName(RpcMethod method) {
  constexpr const char* kNames[] = {"Generate", "Tokenize", "Detokenize", "GetModelInfo",
                                    "GetServerInfo"};
  return kNames[static_cast<int>(method)];
}

const char* EngineStateName(EngineState state) {
  constexpr const char* kNames[] = {"loading", "serving", "draining", "stalled"};
  return kNames[static_cast<int>(state)];
}

struct PrometheusMetrics::ModelSeries {
  explicit ModelSeries(const std::string& model, prometheus::Registry& registry);

  const std::string name;
  Family<Counter>& requests;
  Gauge& running;
  Gauge& waiting;
  Gauge& queue_tokens;
  Histogram& queue_seconds;
  Histogram& first_token;
  Histogram& duration;
  Histogram& inter_token;
  Counter& prompt_computed;
  Counter& prompt_cached;
  Counter& generated;
  std::array<Histogram*, kNumPhases> step_seconds{};
  std::array<Histogram*, kNumPhases> step_tokens{};
  Gauge& kv_usage;
  Gauge& kv_used;
  Gauge& kv_free;
  Counter& preemptions;
  Gauge& last_step;
};

PrometheusMetrics::ModelSeries::ModelSeries(const std::string& model,
                                            prometheus::Registry& registry)
    : name(model),
      requests(CounterFamily(kRequests, registry)),
      running(GaugeFamily(kRunning, registry).Add({{"model", model}})),
      waiting(GaugeFamily(kWaiting, registry).Add({{"model", model}})),
      queue_tokens(GaugeFamily(kQueueTokens, registry).Add({{"model", model}})),
      queue_seconds(
          HistogramFamily(kQueueSeconds, registry).Add({{"model", model}}, RequestBuckets())),
      first_token(HistogramFamily(kFirstToken, registry).Add({{"model", model}}, RequestBuckets())),
      duration(HistogramFamily(kDuration, registry).Add({{"model", model}}, RequestBuckets())),
      inter_token(HistogramFamily(kInterToken, registry).Add({{"model", model}}, TokenBuckets())),
      prompt_computed(
          CounterFamily(kPromptTokens, registry).Add({{"model", model}, {"source", "computed"}})),
      prompt_cached(CounterFamily(kPromptTokens, registry)
                        .Add({{"model", model}, {"source", "prefix_cache"}})),
      generated(CounterFamily(kGenerated, registry).Add({{"model", model}})),
      kv_usage(GaugeFamily(kKvUsage, registry).Add({})),
      kv_used(GaugeFamily(kKvBlocks, registry).Add({{"state", "used"}})),
      kv_free(GaugeFamily(kKvBlocks, registry).Add({{"state", "free"}})),
      preemptions(CounterFamily(kPreemptions, registry).Add({})),
      last_step(GaugeFamily(kLastStep, registry).Add({})) {
  for (int phase = 0; phase < kNumPhases; ++phase) {
    const prometheus::Labels labels = {{"phase", kPhaseNames[phase]}};
    step_seconds[phase] = &HistogramFamily(kStepSeconds, registry).Add(labels, StepBuckets());
    step_tokens[phase] = &HistogramFamily(kStepTokens, registry).Add(labels, RowBuckets());
  }
}

PrometheusMetrics::PrometheusMetrics(const BuildDescription& build, std::optional<int> level)
    : wanted_level_(level), registry_(std::make_shared<prometheus::Registry>()) {
  GaugeFamily(kBuildInfo, *registry_)
      .Add({{"version", build.version}, {"backend", build.backend}, {"isa", build.isa}})
      .Set(1);
  for (int state = 0; state < kNumEngineStates; ++state) {
    states_[state] = &GaugeFamily(kEngineState, *registry_)
                          .Add({{"state", EngineStateName(static_cast<EngineState>(state))}});
  }
  SetState(EngineState::kLoading);
}

PrometheusMetrics::~PrometheusMetrics() = default;

void PrometheusMetrics::SetModel(const ModelDescription& model) {
  GATEHOUSE_CHECK(model_ == nullptr) << "one model a server";
  GaugeFamily(kModelInfo, *registry_)
      .Add({{"model", model.name},
            {"family", model.family},
            {"expert_weights", model.expert_weight_format},
            {"dense_weights", model.dense_weight_format}})
      .Set(1);
  const int64_t num_series = static_cast<int64_t>(model.moe_layers.size()) * model.num_experts;
  const int level = wanted_level_.value_or(num_series <= kMaxExpertSeries ? 2 : 1);
  layers_.resize(static_cast<size_t>(level >= 1 ? model.num_layers : 0));
  for (const int32_t layer_idx : level >= 1 ? model.moe_layers : std::vector<int32_t>{}) {
    LayerSeries& layer = layers_.at(static_cast<size_t>(layer_idx));
    const std::string layer_name = std::to_string(layer_idx);
    layer.imbalance = &GaugeFamily(kImbalance, *registry_).Add({{"layer", layer_name}});
    layer.window_tokens.resize(static_cast<size_t>(model.num_experts));
    layer.previous_window_tokens.resize(static_cast<size_t>(model.num_experts));
    for (int32_t expert = 0; level >= 2 && expert < model.num_experts; ++expert) {
      layer.expert_tokens.push_back(
          &CounterFamily(kExpertTokens, *registry_)
               .Add({{"layer", layer_name}, {"expert", std::to_string(expert)}}));
    }
  }
  model_ = std::make_unique<ModelSeries>(model.name, *registry_);
}

void PrometheusMetrics::SetState(EngineState state) {
  for (int i = 0; i < kNumEngineStates; ++i) states_[i]->Set(i == static_cast<int>(state) ? 1 : 0);
}

void PrometheusMetrics::SetStatus(const EngineStatus& status) {
  model_->running.Set(status.num_running);
  model_->waiting.Set(status.num_waiting);
  model_->queue_tokens.Set(static_cast<double>(status.num_waiting_tokens));
  const auto used = static_cast<double>(status.num_kv_blocks_used);
  const auto total = static_cast<double>(status.num_kv_blocks_total);
  model_->kv_used.Set(used);
  model_->kv_free.Set(total - used);
  model_->kv_usage.Set(total > 0 ? used / total : 0);
}

void PrometheusMetrics::CountRequest(RpcMethod method, absl::StatusCode code) {
  model_->requests
      .Add({{"model", model_->name},
            {"method", RpcMethodName(method)},
            {"code", absl::StatusCodeToString(code)}})
      .Increment();
}

void PrometheusMetrics::OnStep(const StepStats& stats) {
  const Phase phase = PhaseOf(stats);
  model_->step_seconds[phase]->Observe(stats.duration_seconds);
  model_->step_tokens[phase]->Observe(stats.num_prefill_tokens + stats.num_decode_tokens);
  model_->prompt_computed.Increment(stats.num_new_prompt_tokens);
  model_->prompt_cached.Increment(static_cast<double>(stats.num_cached_prompt_tokens));
  model_->preemptions.Increment(stats.num_preemptions);
  SetStatus({.num_running = stats.num_running,
             .num_waiting = stats.num_waiting,
             .num_waiting_tokens = stats.num_waiting_tokens,
             .num_kv_blocks_used = stats.num_kv_blocks_used,
             .num_kv_blocks_total = stats.num_kv_blocks_total});
  // Steps carry monotonic time; alerts compare with the wall clock.
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  model_->last_step.Set(std::chrono::duration<double>(now).count());
  ObserveLayers(stats);
}

void PrometheusMetrics::ObserveLayers(const StepStats& stats) {
  if (layers_.empty()) return;
  for (const LayerLoad& load : stats.layer_loads) {
    LayerSeries& layer = layers_.at(static_cast<size_t>(load.layer));
    const size_t num_experts = std::min(load.expert_tokens.size(), layer.window_tokens.size());
    for (size_t expert = 0; expert < num_experts; ++expert) {
      const int64_t num_tokens = load.expert_tokens[expert];
      if (num_tokens == 0) continue;  // a decode step touches top_k of up to 256
      layer.window_tokens[expert] += num_tokens;
      if (!layer.expert_tokens.empty()) {
        layer.expert_tokens[expert]->Increment(static_cast<double>(num_tokens));
      }
    }
  }
  if (stats.time - imbalance_time_ >= kImbalancePeriod) UpdateImbalance(stats.time);
}

// Over the window in progress and the one before: 10 to 20 seconds of steps.
void PrometheusMetrics::UpdateImbalance(TimePoint now) {
  imbalance_time_ = now;
  const bool window_ends = now - window_begin_ >= kImbalanceWindow;
  if (window_ends) window_begin_ = now;
  for (LayerSeries& layer : layers_) {
    if (layer.imbalance == nullptr) continue;
    int64_t most = 0, sum = 0;
    for (size_t expert = 0; expert < layer.window_tokens.size(); ++expert) {
      const int64_t num_tokens = layer.window_tokens[expert] + layer.previous_window_tokens[expert];
      most = std::max(most, num_tokens);
      sum += num_tokens;
    }
    const auto num_experts = static_cast<double>(layer.window_tokens.size());
    if (sum > 0)
      layer.imbalance->Set(static_cast<double>(most) * num_experts / static_cast<double>(sum));
    if (window_ends) {
      layer.previous_window_tokens.swap(layer.window_tokens);
      std::fill(layer.window_tokens.begin(), layer.window_tokens.end(), 0);
    }
  }
}

void PrometheusMetrics::OnToken(double inter_token_seconds) {
  model_->generated.Increment();
  model_->inter_token.Observe(inter_token_seconds);
}

void PrometheusMetrics::OnFirstToken(double time_to_first_token_seconds) {
  model_->generated.Increment();
  model_->first_token.Observe(time_to_first_token_seconds);
}

void PrometheusMetrics::OnRequestEnd(const RequestStats& stats) {
  model_->queue_seconds.Observe(stats.queue_seconds);
  model_->duration.Observe(stats.total_seconds);
}

std::string PrometheusMetrics::Scrape() const {
  return prometheus::TextSerializer().Serialize(registry_->Collect());
}

}  // namespace gatehouse
