#include "server/prometheus_metrics.h"

#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "kernels/base/check.h"
#include "server/exchange_series.h"
#include "server/expert_series.h"
#include "server/rebalance_series.h"
#include "server/roofline_series.h"

namespace gatehouse {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;

// The table, but for what expert_series.cc makes. Labels stand behind the help.
struct Metric {
  const char* name;
  const char* help;
};
// clang-format off
constexpr Metric kBuildInfo{"gatehouse_build_info", "Always 1; what this server is."};                                                // version, backend, isa
constexpr Metric kEngineState{"gatehouse_engine_state", "1 for the state that the engine is in, 0 for the others."};                  // state
constexpr Metric kModelInfo{"gatehouse_model_info", "Always 1; what is served."};                                                     // model, family, expert_weights, dense_weights
constexpr Metric kRequests{"gatehouse_requests_total", "Calls that have ended, by gRPC status."};                                     // model, method, code
constexpr Metric kRunning{"gatehouse_requests_running", "Requests that take part in steps."};                                         // model, priority
constexpr Metric kWaiting{"gatehouse_requests_waiting", "Requests that wait in the queue."};                                          // model, priority
constexpr Metric kQueueTokens{"gatehouse_queue_tokens", "Prompt tokens of the requests that wait."};                                  // model, priority
constexpr Metric kWaitingLimit{"gatehouse_requests_waiting_limit", "Requests that may wait in the queue; more are refused."};            //
constexpr Metric kQueueTokensLimit{"gatehouse_queue_tokens_limit", "Prompt tokens that may wait in the queue; more are refused."};    //
constexpr Metric kPolicyVersion{"gatehouse_policy_version", "Version of the routing policy in force; every change raises it."};  //
constexpr Metric kTenantRunning{"gatehouse_tenant_requests_running", "Requests of a tenant that take part in steps."};                 // tenant
constexpr Metric kTenantWaiting{"gatehouse_tenant_requests_waiting", "Requests of a tenant that wait in the queue."};                  // tenant
constexpr Metric kTenantQueueTokens{"gatehouse_tenant_queue_tokens", "Prompt tokens of a tenant's requests that wait."};              // tenant
constexpr Metric kTenantTokens{"gatehouse_tenant_tokens_total", "Tokens of a tenant's requests that have ended."};                    // tenant, kind
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
constexpr Metric kActiveExperts{"gatehouse_experts_active_total", "Experts that got a token, summed over layers and steps."};         //
constexpr Metric kShadowRequests{"gatehouse_shadow_exact_requests_total", "Bounded requests of the shadow-exact sample, replayed exactly or skipped."};  // mode, result
constexpr Metric kShadowTokens{"gatehouse_shadow_exact_tokens_total", "Tokens whose bounded distribution was compared with the exact one."};  // mode
constexpr Metric kShadowAgreed{"gatehouse_shadow_exact_agreed_tokens_total", "Of them: the most likely token is the same."};            // mode
constexpr Metric kShadowKl{"gatehouse_shadow_exact_kl_nats_total", "KL divergence of the bounded from the exact distribution, summed over them."};  // mode
constexpr Metric kLastStep{"gatehouse_engine_last_step_timestamp_seconds", "When the last step ended, Unix time."};                   //
constexpr Metric kCertificateExpiry{"gatehouse_tls_certificate_expiry_timestamp_seconds", "When the first certificate of a listener expires, Unix time."};  // file
constexpr Metric kReloads{"gatehouse_reloads_total", "Times a file was read again; error: the old content stays in force."};          // file, result
// clang-format on

constexpr int64_t kMaxExpertSeries = 2048;  // a scrape of 150 KB; more must be asked for
constexpr Duration kLongestStepWindow = std::chrono::minutes(10);

enum Phase { kPrefill, kDecode, kMixed, kNumPhases };
constexpr const char* kPhaseNames[] = {"prefill", "decode", "mixed"};
constexpr const char* kPriorityNames[kNumPriorities] = {"low", "normal", "high"};

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

const char* ReloadedFileName(ReloadedFile file) {
  constexpr const char* kNames[] = {"tls", "tenants", "admin_tls", "admin_tokens"};
  return kNames[static_cast<int>(file)];
}

struct PrometheusMetrics::QueueGauges {
  Gauge* running = nullptr;
  Gauge* waiting = nullptr;
  Gauge* tokens = nullptr;

  void Set(const QueueCounts& counts) const {
    running->Set(counts.num_running);
    waiting->Set(counts.num_waiting);
    tokens->Set(static_cast<double>(counts.num_waiting_tokens));
  }
};

struct PrometheusMetrics::ModelSeries {
  ModelSeries(const ModelDescription& description, const MachineLimits& limits,
              const ExchangeGroup& group, int level, prometheus::Registry& registry);

  const std::string name;
  const int level;
  ExpertLoad expert_load;
  std::array<QueueGauges, kNumPriorities> queues{};
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
  Counter& active_experts;
  Gauge& last_step;
  RooflineSeries roofline;
  ExchangeSeries exchanges;
  RebalanceSeries rebalances;
};

PrometheusMetrics::ModelSeries::ModelSeries(const ModelDescription& description,
                                            const MachineLimits& limits, const ExchangeGroup& group,
                                            int level, prometheus::Registry& registry)
    : name(description.name),
      level(level),
      expert_load(description.moe_layers, description.num_experts),
      queue_seconds(
          HistogramFamily(kQueueSeconds, registry).Add({{"model", name}}, RequestBuckets())),
      first_token(HistogramFamily(kFirstToken, registry).Add({{"model", name}}, RequestBuckets())),
      duration(HistogramFamily(kDuration, registry).Add({{"model", name}}, RequestBuckets())),
      inter_token(HistogramFamily(kInterToken, registry).Add({{"model", name}}, TokenBuckets())),
      prompt_computed(
          CounterFamily(kPromptTokens, registry).Add({{"model", name}, {"source", "computed"}})),
      prompt_cached(CounterFamily(kPromptTokens, registry)
                        .Add({{"model", name}, {"source", "prefix_cache"}})),
      generated(CounterFamily(kGenerated, registry).Add({{"model", name}})),
      kv_usage(GaugeFamily(kKvUsage, registry).Add({})),
      kv_used(GaugeFamily(kKvBlocks, registry).Add({{"state", "used"}})),
      kv_free(GaugeFamily(kKvBlocks, registry).Add({{"state", "free"}})),
      preemptions(CounterFamily(kPreemptions, registry).Add({})),
      active_experts(CounterFamily(kActiveExperts, registry).Add({})),
      last_step(GaugeFamily(kLastStep, registry).Add({})),
      roofline(limits, {std::begin(kPhaseNames), std::end(kPhaseNames)}, registry),
      exchanges(group, registry),
      rebalances(group.membership.num_ranks, registry) {
  for (int i = 0; i < kNumPriorities; ++i) {
    const prometheus::Labels labels = {{"model", name}, {"priority", kPriorityNames[i]}};
    queues[i] = {.running = &GaugeFamily(kRunning, registry).Add(labels),
                 .waiting = &GaugeFamily(kWaiting, registry).Add(labels),
                 .tokens = &GaugeFamily(kQueueTokens, registry).Add(labels)};
  }
  for (int phase = 0; phase < kNumPhases; ++phase) {
    const prometheus::Labels labels = {{"phase", kPhaseNames[phase]}};
    step_seconds[phase] = &HistogramFamily(kStepSeconds, registry).Add(labels, StepBuckets());
    step_tokens[phase] = &HistogramFamily(kStepTokens, registry).Add(labels, RowBuckets());
  }
}

PrometheusMetrics::PrometheusMetrics(const BuildDescription& build, std::optional<int> level)
    : wanted_level_(level),
      registry_(std::make_shared<prometheus::Registry>()),
      requests_(CounterFamily(kRequests, *registry_)),
      reloads_(CounterFamily(kReloads, *registry_)) {
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

void PrometheusMetrics::SetModel(const ModelDescription& model, const MachineLimits& limits,
                                 const ExchangeGroup& group) {
  GATEHOUSE_CHECK(owned_model_ == nullptr) << "one model a server";
  GaugeFamily(kModelInfo, *registry_)
      .Add({{"model", model.name},
            {"family", model.family},
            {"expert_weights", model.expert_weight_format},
            {"dense_weights", model.dense_weight_format}})
      .Set(1);
  const int64_t num_series = static_cast<int64_t>(model.moe_layers.size()) * model.num_experts;
  const int level = wanted_level_.value_or(num_series <= kMaxExpertSeries ? 2 : 1);
  owned_model_ = std::make_unique<ModelSeries>(model, limits, group, level, *registry_);
  model_ = owned_model_.get();
}

void PrometheusMetrics::SetState(EngineState state) {
  for (int i = 0; i < kNumEngineStates; ++i) states_[i]->Set(i == static_cast<int>(state) ? 1 : 0);
}

void PrometheusMetrics::SetStatus(const EngineStatus& status) {
  SetLoad(status.priority_counts, status.num_kv_blocks_used, status.num_kv_blocks_total);
  const MutexLock lock(mutex_);
  std::set<std::string> idle = std::exchange(busy_tenants_, {});
  for (const auto& [tenant, counts] : status.tenant_counts) {
    GaugesOf(tenant).Set(counts);
    idle.erase(tenant);
    busy_tenants_.insert(tenant);
  }
  for (const std::string& tenant : idle) GaugesOf(tenant).Set({});
}

void PrometheusMetrics::SetRebalance(const RebalanceStatus& status) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  model_.load()->rebalances.Set(status, std::chrono::duration<double>(now).count());
}

// Made when the tenant is seen first.
PrometheusMetrics::QueueGauges PrometheusMetrics::GaugesOf(const std::string& tenant) {
  const prometheus::Labels labels = {{"tenant", tenant}};
  return {.running = &GaugeFamily(kTenantRunning, *registry_).Add(labels),
          .waiting = &GaugeFamily(kTenantWaiting, *registry_).Add(labels),
          .tokens = &GaugeFamily(kTenantQueueTokens, *registry_).Add(labels)};
}

void PrometheusMetrics::SetLoad(const PriorityCounts& counts, int64_t num_kv_blocks_used,
                                int64_t num_kv_blocks_total) {
  ModelSeries& model = *model_;
  for (int i = 0; i < kNumPriorities; ++i) model.queues[i].Set(counts[i]);
  const auto used = static_cast<double>(num_kv_blocks_used);
  const auto total = static_cast<double>(num_kv_blocks_total);
  model.kv_used.Set(used);
  model.kv_free.Set(total - used);
  model.kv_usage.Set(total > 0 ? used / total : 0);
}

void PrometheusMetrics::CountRequest(RpcMethod method, absl::StatusCode code) {
  const ModelSeries* model = model_;
  requests_
      .Add({{"model", model == nullptr ? "" : model->name},
            {"method", RpcMethodName(method)},
            {"code", absl::StatusCodeToString(code)}})
      .Increment();
}

void PrometheusMetrics::CountReload(ReloadedFile file, bool ok) {
  reloads_.Add({{"file", ReloadedFileName(file)}, {"result", ok ? "ok" : "error"}}).Increment();
}

void PrometheusMetrics::SetCertificateExpiry(ReloadedFile file, double unix_seconds) {
  GaugeFamily(kCertificateExpiry, *registry_)
      .Add({{"file", ReloadedFileName(file)}})
      .Set(unix_seconds);
}

void PrometheusMetrics::SetQueueLimits(int32_t num_requests, int64_t num_tokens) {
  GaugeFamily(kWaitingLimit, *registry_).Add({}).Set(num_requests);
  GaugeFamily(kQueueTokensLimit, *registry_).Add({}).Set(static_cast<double>(num_tokens));
}

void PrometheusMetrics::SetRoutingPolicyVersion(int64_t version) {
  GaugeFamily(kPolicyVersion, *registry_).Add({}).Set(static_cast<double>(version));
}

void PrometheusMetrics::OnRegroup(const Membership& membership, double seconds) {
  if (ModelSeries* model = model_) model->exchanges.OnRegroup(membership, seconds);
}

void PrometheusMetrics::OnStep(const StepStats& stats) {
  ModelSeries& model = *model_;
  const Phase phase = PhaseOf(stats);
  model.step_seconds[phase]->Observe(stats.duration_seconds);
  model.step_tokens[phase]->Observe(stats.num_prefill_tokens + stats.num_decode_tokens);
  model.prompt_computed.Increment(stats.num_new_prompt_tokens);
  model.prompt_cached.Increment(static_cast<double>(stats.num_cached_prompt_tokens));
  model.preemptions.Increment(stats.num_preemptions);
  model.roofline.OnStep(phase, stats);
  model.exchanges.OnStep(stats.exchanges);
  SetLoad(stats.priority_counts, stats.num_kv_blocks_used, stats.num_kv_blocks_total);
  // Steps carry monotonic time; alerts compare with the wall clock.
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  model.last_step.Set(std::chrono::duration<double>(now).count());
  const int64_t num_active_experts = model.expert_load.Add(stats.layer_loads, stats.time);
  model.active_experts.Increment(static_cast<double>(num_active_experts));
  const MutexLock lock(mutex_);
  totals_.num_prompt_tokens += stats.num_new_prompt_tokens;
  totals_.num_cached_prompt_tokens += stats.num_cached_prompt_tokens;
  totals_.num_preemptions += stats.num_preemptions;
  totals_.weight_bytes += stats.cost.dense_bytes + stats.cost.expert_bytes;
  totals_.step_seconds += stats.duration_seconds;
  ++totals_.num_steps;
  if (stats.time - longest_begin_ >= kLongestStepWindow) {
    longest_begin_ = stats.time;
    previous_longest_step_ = std::exchange(longest_step_, 0);
  }
  longest_step_ = std::max(longest_step_, stats.duration_seconds);
}

void PrometheusMetrics::OnToken(double inter_token_seconds) {
  ModelSeries& model = *model_;
  model.generated.Increment();
  model.inter_token.Observe(inter_token_seconds);
}

void PrometheusMetrics::OnFirstToken(double time_to_first_token_seconds) {
  ModelSeries& model = *model_;
  model.generated.Increment();
  model.first_token.Observe(time_to_first_token_seconds);
}

void PrometheusMetrics::OnRequestEnd(const RequestStats& stats) {
  ModelSeries& model = *model_;
  model.queue_seconds.Observe(stats.queue_seconds);
  model.duration.Observe(stats.total_seconds);
  GaugesOf(stats.tenant);  // a short request ends before SetStatus sees it
  Family<Counter>& tokens = CounterFamily(kTenantTokens, *registry_);
  tokens.Add({{"tenant", stats.tenant}, {"kind", "prompt"}}).Increment(stats.num_prompt_tokens);
  tokens.Add({{"tenant", stats.tenant}, {"kind", "generated"}})
      .Increment(stats.num_generated_tokens);
  const MutexLock lock(mutex_);
  ++totals_.num_ended_requests;
}

void PrometheusMetrics::OnShadow(const ShadowStats& stats) {
  const prometheus::Labels mode = {{"mode", RoutingModeName(stats.mode)}};
  CounterFamily(kShadowRequests, *registry_)
      .Add({{"mode", RoutingModeName(stats.mode)},
            {"result", stats.replayed ? "replayed" : "skipped"}})
      .Increment();
  CounterFamily(kShadowTokens, *registry_).Add(mode).Increment(stats.num_tokens);
  CounterFamily(kShadowAgreed, *registry_).Add(mode).Increment(stats.num_agreed);
  CounterFamily(kShadowKl, *registry_).Add(mode).Increment(stats.kl_nats);
}

EngineTotals PrometheusMetrics::Totals() const {
  const ModelSeries* model = model_;
  const MutexLock lock(mutex_);
  EngineTotals totals = totals_;
  totals.num_generated_tokens =
      model == nullptr ? 0 : static_cast<int64_t>(model->generated.Value());
  return totals;
}

double PrometheusMetrics::LongestStepSeconds() const {
  const MutexLock lock(mutex_);
  return std::max(longest_step_, previous_longest_step_);
}

std::vector<LayerLoadCounts> PrometheusMetrics::ReadExpertLoad() const {
  ModelSeries* model = model_;
  return model == nullptr ? std::vector<LayerLoadCounts>{} : model->expert_load.Read();
}

std::string PrometheusMetrics::Scrape() const {
  std::vector<prometheus::MetricFamily> families = registry_->Collect();
  const ModelSeries* model = model_;
  if (model != nullptr) {
    std::vector<prometheus::MetricFamily> experts =
        ExpertFamilies(model->expert_load.Read(), model->level);
    std::move(experts.begin(), experts.end(), std::back_inserter(families));
  }
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace gatehouse
