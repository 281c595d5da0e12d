#include "server/prometheus_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <set>
#include <sstream>

namespace gatehouse {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const BuildDescription kBuild{.version = "0.1", .backend = "cpu", .isa = "avx2"};

ModelDescription Model(int num_layers, int num_experts) {
  ModelDescription model;
  model.name = "demo";
  model.family = "qwen3_moe";
  model.num_layers = num_layers;
  for (int layer = 1; layer < num_layers; ++layer) model.moe_layers.push_back(layer);
  model.num_experts = num_experts;
  model.expert_weight_format = "bf16";
  model.dense_weight_format = "f32";
  return model;
}

StepStats DecodeStep(double seconds_since_start, std::vector<int64_t> layer_1_tokens) {
  StepStats stats;
  stats.time =
      TimePoint(std::chrono::hours(1) +
                std::chrono::milliseconds(static_cast<int64_t>(seconds_since_start * 1000)));
  stats.duration_seconds = 0.01;
  stats.num_decode_tokens = 2;
  stats.num_kv_blocks_used = 25;
  stats.num_kv_blocks_total = 100;
  stats.layer_loads.push_back({.layer = 1, .expert_tokens = std::move(layer_1_tokens)});
  return stats;
}

TEST(PrometheusMetricsTest, HasTheDocumentedNamesTypesAndHelp) {
  PrometheusMetrics metrics(kBuild, std::nullopt);
  metrics.SetModel(Model(3, 4), {1e9, 2e9, 3e9});
  metrics.CountRequest(RpcMethod::kGenerate, absl::StatusCode::kOk);
  std::set<std::string> types, helps;
  std::istringstream lines(metrics.Scrape());
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# TYPE ")) types.insert(line.substr(7));
    if (line.starts_with("# HELP ")) helps.insert(line.substr(7, line.find(' ', 7) - 7));
  }
  const std::set<std::string> expected = {
      "gatehouse_build_info gauge",
      "gatehouse_engine_last_step_timestamp_seconds gauge",
      "gatehouse_engine_state gauge",
      "gatehouse_expert_load_imbalance_ratio gauge",
      "gatehouse_expert_tokens_total counter",
      "gatehouse_experts_active_total counter",
      "gatehouse_generated_tokens_total counter",
      "gatehouse_inter_token_seconds histogram",
      "gatehouse_kv_blocks gauge",
      "gatehouse_kv_cache_usage_ratio gauge",
      "gatehouse_model_info gauge",
      "gatehouse_preemptions_total counter",
      "gatehouse_prompt_tokens_total counter",
      "gatehouse_queue_tokens gauge",
      "gatehouse_request_duration_seconds histogram",
      "gatehouse_request_queue_seconds histogram",
      "gatehouse_requests_running gauge",
      "gatehouse_requests_total counter",
      "gatehouse_requests_waiting gauge",
      "gatehouse_machine_operations_per_second gauge",
      "gatehouse_machine_read_bytes_per_second gauge",
      "gatehouse_step_bound_seconds_total counter",
      "gatehouse_step_duration_seconds histogram",
      "gatehouse_step_operations_total counter",
      "gatehouse_step_read_bytes_total counter",
      "gatehouse_step_roofline_ratio gauge",
      "gatehouse_step_tokens histogram",
      "gatehouse_time_to_first_token_seconds histogram",
  };
  EXPECT_EQ(types, expected);
  EXPECT_EQ(helps.size(), types.size()) << "each has a help line";
}

TEST(PrometheusMetricsTest, CountsWhatStepsAndRequestsDid) {
  PrometheusMetrics metrics(kBuild, std::nullopt);
  metrics.SetModel(Model(2, 4));
  metrics.OnStep(DecodeStep(0, {1, 0, 2, 1}));
  metrics.OnStep(DecodeStep(0.1, {3, 0, 0, 1}));
  StepStats prefill;
  prefill.num_prefill_tokens = 9;  // two of them again, after a preemption
  prefill.num_new_prompt_tokens = 7;
  prefill.num_preemptions = 2;
  prefill.priority_counts[0].num_waiting = 5;
  prefill.priority_counts[2] = {.num_running = 3, .num_waiting = 1, .num_waiting_tokens = 70};
  prefill.num_kv_blocks_used = 25;
  prefill.num_kv_blocks_total = 100;
  metrics.OnStep(prefill);
  metrics.OnFirstToken(0.02);
  metrics.OnToken(0.004);
  metrics.OnRequestEnd({.status = {}, .queue_seconds = 0.3, .total_seconds = 3});
  metrics.CountRequest(RpcMethod::kTokenize, absl::StatusCode::kInvalidArgument);
  metrics.SetState(EngineState::kDraining);
  const std::string scrape = metrics.Scrape();
  for (const std::string line : {
           R"(gatehouse_expert_tokens_total{expert="0",layer="1"} 4)",
           R"(gatehouse_expert_tokens_total{expert="1",layer="1"} 0)",
           R"(gatehouse_expert_tokens_total{expert="2",layer="1"} 2)",
           R"(gatehouse_step_tokens_count{phase="decode"} 2)",
           R"(gatehouse_step_tokens_sum{phase="prefill"} 9)",
           R"(gatehouse_step_duration_seconds_bucket{phase="decode",le="0.01"} 2)",
           R"(gatehouse_prompt_tokens_total{model="demo",source="computed"} 7)",
           R"(gatehouse_generated_tokens_total{model="demo"} 2)",
           R"(gatehouse_preemptions_total 2)",
           R"(gatehouse_requests_waiting{model="demo",priority="low"} 5)",
           R"(gatehouse_requests_waiting{model="demo",priority="high"} 1)",
           R"(gatehouse_requests_running{model="demo",priority="high"} 3)",
           R"(gatehouse_requests_running{model="demo",priority="normal"} 0)",
           R"(gatehouse_queue_tokens{model="demo",priority="high"} 70)",
           R"(gatehouse_kv_cache_usage_ratio 0.25)",
           R"(gatehouse_kv_blocks{state="free"} 75)",
           R"(gatehouse_time_to_first_token_seconds_count{model="demo"} 1)",
           R"(gatehouse_inter_token_seconds_bucket{model="demo",le="0.004"} 1)",
           R"(gatehouse_request_queue_seconds_sum{model="demo"} 0.3)",
           R"(gatehouse_requests_total{code="INVALID_ARGUMENT",method="Tokenize",model="demo"} 1)",
           R"(gatehouse_engine_state{state="draining"} 1)",
           R"(gatehouse_engine_state{state="loading"} 0)",
           R"(gatehouse_build_info{backend="cpu",isa="avx2",version="0.1"} 1)",
       }) {
    EXPECT_THAT(scrape, HasSubstr(line + "\n"));
  }
}

TEST(PrometheusMetricsTest, ShowsWhatEachTenantHas) {
  PrometheusMetrics metrics(kBuild, std::nullopt);
  metrics.SetModel(Model(2, 4));
  EXPECT_THAT(metrics.Scrape(), Not(HasSubstr("gatehouse_tenant"))) << "nobody was seen";
  EngineStatus status;
  status.tenant_counts = {{"web", {.num_running = 2, .num_waiting = 7, .num_waiting_tokens = 90}},
                          {"lab", {.num_running = 1}}};
  metrics.SetStatus(status);
  for (int i = 0; i < 2; ++i) {
    RequestStats stats;
    stats.num_prompt_tokens = 10;
    stats.num_generated_tokens = 3;
    stats.tenant = "web";
    metrics.OnRequestEnd(stats);
  }
  const std::string scrape = metrics.Scrape();
  for (const std::string line : {
           R"(gatehouse_tenant_requests_running{tenant="web"} 2)",
           R"(gatehouse_tenant_requests_running{tenant="lab"} 1)",
           R"(gatehouse_tenant_requests_waiting{tenant="web"} 7)",
           R"(gatehouse_tenant_queue_tokens{tenant="web"} 90)",
           R"(gatehouse_tenant_tokens_total{kind="prompt",tenant="web"} 20)",
           R"(gatehouse_tenant_tokens_total{kind="generated",tenant="web"} 6)",
       }) {
    EXPECT_THAT(scrape, HasSubstr(line + "\n"));
  }
  status.tenant_counts.pop_back();
  metrics.SetStatus(status);
  EXPECT_THAT(metrics.Scrape(), HasSubstr("gatehouse_tenant_requests_running{tenant=\"lab\"} 0\n"));
}

TEST(PrometheusMetricsTest, ImbalanceIsMostOverMeanAndForgetsOldWindows) {
  PrometheusMetrics metrics(kBuild, std::nullopt);
  metrics.SetModel(Model(2, 4));
  metrics.OnStep(DecodeStep(0, {3, 1, 0, 0}));
  EXPECT_THAT(metrics.Scrape(),
              HasSubstr("gatehouse_expert_load_imbalance_ratio{layer=\"1\"} 3\n"));
  // Windows end at 10, 20 and 30 s; after that the first step is forgotten.
  for (const double seconds : {10, 20, 30, 31}) {
    metrics.OnStep(DecodeStep(seconds, {5, 5, 5, 5}));
  }
  EXPECT_THAT(metrics.Scrape(),
              HasSubstr("gatehouse_expert_load_imbalance_ratio{layer=\"1\"} 1\n"));
}

constexpr int kDevices = 8;

// All that bounds can do, at every layer: tokens of every mode, reroutes and drops of all experts.
StepStats BoundedStep(const ModelDescription& model) {
  StepStats stats = DecodeStep(0, {});
  stats.layer_loads.clear();
  const std::vector<int64_t> each(model.num_experts, 1);
  for (const int layer : model.moe_layers) {
    LayerLoad& load = stats.layer_loads.emplace_back();
    load = {.layer = layer, .expert_tokens = each};
    for (RouteReport& report : load.reports) {
      report = {.assignments = 12,
                .kept = 6,
                .rerouted = 4,
                .dropped = 2,
                .gate_mass = 4,
                .gate_mass_kept = 3,
                .covered = 2,
                .overrides = 1,
                .bare = 3};
    }
    load.bounds = {.expert_rerouted = each,
                   .expert_dropped = each,
                   .expert_received = each,
                   .rerouted = {0, 3, 1, 0, 0},
                   .dropped = {0, 0, 0, 2, 1},
                   .expert_capacity = std::vector<int64_t>(model.num_experts, 7),
                   .causes = {0, 1, 2, 0, 3, 0, 0, 0},
                   .pressure = 5,
                   .device_usage = 0.75,
                   .device_budgets = std::vector<int64_t>(kDevices, 4),
                   .device_loads = std::vector<int64_t>(kDevices, 3)};
    load.bounds.expert_received[0] = 0;
    load.bounds.expert_capacity[0] = 6;
  }
  return stats;
}

TEST(PrometheusMetricsTest, SaysWhatBoundsDid) {
  const ModelDescription model = Model(3, 4);
  PrometheusMetrics metrics(kBuild, 2);
  metrics.SetModel(model);
  StepStats exact = DecodeStep(0, {0, 0, 0, 0});
  exact.layer_loads[0].reports[0] = {.assignments = 4, .kept = 4, .gate_mass = 2};
  metrics.OnStep(exact);
  for (const char* word : {"gatehouse_routing", "gatehouse_device", "capacity", "overflow"}) {
    EXPECT_THAT(metrics.Scrape(), Not(HasSubstr(word))) << "no bound, no noise";
  }
  metrics.OnStep(BoundedStep(model));
  const std::string scrape = metrics.Scrape();
  for (const std::string line : {
           R"(gatehouse_experts_active_total 8)",
           R"(gatehouse_routing_assignments_total{fate="rerouted",mode="shared"} 8)",
           R"(gatehouse_routing_assignments_total{fate="kept",mode="block_causal"} 12)",
           R"(gatehouse_routing_gate_mass_total{part="chosen",mode="threshold"} 8)",
           R"(gatehouse_routing_gate_mass_total{part="computed",mode="threshold"} 6)",
           R"(gatehouse_routing_overrides_total{mode="shared"} 2)",
           R"(gatehouse_routing_uncomputed_tokens_total{mode="block"} 6)",
           R"(gatehouse_routing_covered_tokens_total{mode="block"} 4)",
           R"(gatehouse_expert_capacity_cause_total{cause="mass"} 6)",
           R"(gatehouse_device_tokens_total{device="7"} 6)",
           R"(gatehouse_device_budget_tokens_total{device="7"} 8)",
           R"(gatehouse_expert_overflow_tokens_total{action="reroute",cause="expert",layer="2"} 3)",
           R"(gatehouse_expert_overflow_tokens_total{action="reroute",cause="device",layer="2"} 1)",
           R"(gatehouse_expert_overflow_tokens_total{action="drop",cause="threshold",layer="2"} 2)",
           R"(gatehouse_expert_overflow_tokens_total{action="drop",cause="coverage",layer="2"} 1)",
           R"(gatehouse_expert_gate_mass_kept_ratio{layer="1"} 0.75)",
           R"(gatehouse_expert_capacity_tokens{layer="1"} 6)",
           R"(gatehouse_device_budget_usage_ratio{layer="1"} 0.75)",
           R"(gatehouse_expert_pressure_total{layer="1"} 5)",
           R"(gatehouse_expert_chosen_tokens_total{expert="0",layer="2"} 3)",
           R"(gatehouse_expert_chosen_tokens_total{expert="1",layer="2"} 2)",
           R"(gatehouse_expert_rerouted_tokens_total{expert="3",layer="2"} 1)",
           R"(gatehouse_expert_dropped_tokens_total{expert="0",layer="1"} 1)",
       }) {
    EXPECT_THAT(scrape, HasSubstr(line + "\n"));
  }
}

TEST(PrometheusMetricsTest, AddsUpWhatReplaysFound) {
  PrometheusMetrics metrics(kBuild, std::nullopt);
  EXPECT_THAT(metrics.Scrape(), Not(HasSubstr("gatehouse_shadow_exact_")));
  for (int i = 0; i < 2; ++i) {
    metrics.OnShadow({.mode = RoutingMode::kShared,
                      .replayed = true,
                      .num_tokens = 8,
                      .num_agreed = 7,
                      .kl_nats = 0.125});
  }
  metrics.OnShadow({.mode = RoutingMode::kShared});
  metrics.OnShadow({.mode = RoutingMode::kIsolated});
  const std::string text = metrics.Scrape();
  for (const char* const line :
       {"requests_total{mode=\"shared\",result=\"replayed\"} 2\n",
        "requests_total{mode=\"shared\",result=\"skipped\"} 1\n",
        "requests_total{mode=\"isolated\",result=\"skipped\"} 1\n",
        "\ngatehouse_shadow_exact_tokens_total{mode=\"shared\"} 16\n",
        "agreed_tokens_total{mode=\"shared\"} 14\n", "kl_nats_total{mode=\"shared\"} 0.25\n",
        "agreed_tokens_total{mode=\"isolated\"} 0\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(PrometheusMetricsTest, ShowsTheQueueLimitsAndThePolicyLastSet) {
  PrometheusMetrics metrics(kBuild, std::nullopt);
  EXPECT_THAT(metrics.Scrape(), Not(HasSubstr("_limit")));
  metrics.SetQueueLimits(7, int64_t{1} << 20);
  metrics.SetRoutingPolicyVersion(1);
  metrics.SetRoutingPolicyVersion(2);
  const std::string text = metrics.Scrape();
  for (const char* line :
       {"\ngatehouse_requests_waiting_limit 7\n", "\ngatehouse_queue_tokens_limit 1048576\n",
        "\ngatehouse_policy_version 2\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

// A row of the table in docs/operations.md: at most so many series of experts, routing and devices,
// each number times what its column names.
struct DocumentedSeries {
  int64_t once = 0, devices = 0, layers = 0, layers_and_experts = 0;
};
std::vector<DocumentedSeries> ReadDocumentedSeries() {
  std::ifstream file(GATEHOUSE_SOURCE_DIR "/docs/operations.md");
  std::vector<DocumentedSeries> levels;
  for (std::string line; std::getline(file, line);) {
    DocumentedSeries row;
    int level = 0;
    const int num_read = std::sscanf(
        line.c_str(), "| `%d` | %" SCNd64 " | %" SCNd64 " | %" SCNd64 " | %" SCNd64 " |", &level,
        &row.once, &row.devices, &row.layers, &row.layers_and_experts);
    if (num_read != 5) continue;
    EXPECT_EQ(level, static_cast<int>(levels.size()));
    levels.push_back(row);
  }
  return levels;
}

// Of experts, routing and devices; or of everything else.
int64_t CountSeries(const PrometheusMetrics& metrics, bool of_experts) {
  std::istringstream lines(metrics.Scrape());
  int64_t num_series = 0;
  for (std::string line; std::getline(lines, line);) {
    const bool is_of_experts = line.starts_with("gatehouse_expert") ||
                               line.starts_with("gatehouse_routing_") ||
                               line.starts_with("gatehouse_device_");
    num_series += !line.starts_with('#') && is_of_experts == of_experts;
  }
  return num_series;
}

TEST(PrometheusMetricsTest, LevelsBoundTheNumberOfSeriesAsDocumented) {
  // The largest models that are about: 61 layers of 256 experts.
  constexpr int64_t kLayers = 61, kExperts = 256;
  const ModelDescription large = Model(kLayers + 1, kExperts);
  const std::vector<DocumentedSeries> documented = ReadDocumentedSeries();
  ASSERT_EQ(documented.size(), 3u);
  const int64_t of_exact_routing[] = {1, 1 + kLayers, 1 + kLayers + kLayers * kExperts};
  for (int level = 0; level <= 2; ++level) {
    PrometheusMetrics metrics(kBuild, level);
    metrics.SetModel(large);
    EXPECT_EQ(CountSeries(metrics, true), of_exact_routing[level]) << "level " << level;
    metrics.OnStep(BoundedStep(large));
    const DocumentedSeries& row = documented[level];
    EXPECT_EQ(CountSeries(metrics, true), row.once + kDevices * row.devices + kLayers * row.layers +
                                              kLayers * kExperts * row.layers_and_experts)
        << "level " << level;
    EXPECT_LE(CountSeries(metrics, false), 250) << "the rest of the server";
  }
}

TEST(PrometheusMetricsTest, LevelTwoMustBeAskedForOfALargeModel) {
  PrometheusMetrics large(kBuild, std::nullopt), small(kBuild, std::nullopt);
  large.SetModel(Model(62, 256));
  EXPECT_THAT(large.Scrape(), Not(HasSubstr("gatehouse_expert_tokens_total"))) << "15,616 series";
  small.SetModel(Model(9, 256));
  EXPECT_THAT(small.Scrape(), HasSubstr("gatehouse_expert_tokens_total")) << "2,048 series";
}

}  // namespace
}  // namespace gatehouse
