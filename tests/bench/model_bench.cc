// Whole steps of a model on the CPU back end, without server or scheduler: prefill of one prompt,
// routed exactly and under bounds, decode of a batch. Beside each rate stand the machine's limits,
// measured in the same run, and the share that was reached of the time that they allow
// (engine/model/step_cost.h has the formulas).
//
// usage: model_bench MODEL_DIR [--threads N] [--ranks N] [--isa NAME] [--weights FORMAT] [--repeats
// N]
//                    [--threshold X]
// Prints one JSON line a measurement: the median of the repeats.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <ctime>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <thread>

#include "engine/loaded_model.h"
#include "engine/model/step_cost.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/machine_limits.h"

namespace gatehouse::bench {
namespace {

constexpr int kBlockTokens = 16;
constexpr int kDecodeContext = 160;

struct Options {
  std::string model_dir;
  int num_threads = static_cast<int>(std::thread::hardware_concurrency());
  int num_ranks = 1;
  std::string isa;
  std::string weights = "auto";  // of experts and dense matrices alike
  int num_repeats = 5;
  float threshold = 0.1f;
};

struct Measurement {
  double seconds = 0;      // of one step, median
  double cpu_seconds = 0;  // of all threads, likewise: other programs count less
  StepCost cost;
  RouteReport routing;
};

// The server's default bound, on eight virtual devices; every layer.
PinnedPolicy SharedPolicy(const ModelDescription& model) {
  PinnedPolicy pinned{.mode = TokenMode::kShared,
                      .placement = LinearPlacement(model.num_experts, 8),
                      .layer_exempt = std::vector<uint8_t>(model.moe_layers.size())};
  pinned.policy.capacity.device_factor = 1.25;
  pinned.policy.reroute = std::min(8, model.num_experts);
  pinned.policy.renormalise_after_drop = true;
  return pinned;
}

// The same threshold for every expert, on the share; every layer.
PinnedPolicy ThresholdPolicy(const ModelDescription& model, float threshold) {
  PinnedPolicy pinned = SharedPolicy(model);
  pinned.mode = TokenMode::kThreshold;
  pinned.affinity = Affinity::kShare;
  pinned.thresholds.assign(model.moe_layers.size(),
                           std::vector<float>(model.num_experts, threshold));
  return pinned;
}

class ModelBench {
 public:
  ModelBench(const Options& options, LoadedModel model)
      : options_(options), model_(std::move(model)), pool_(options.num_threads) {}

  // Of `num_prompts` at once, on ranks by turns.
  void Prefill(int num_prompts, int num_tokens, const std::string& measure,
               const PinnedPolicy* policy) {
    const Measurement step = Measure(num_prompts, num_tokens, 0, policy);
    const auto assignments = static_cast<double>(std::max<int64_t>(step.routing.assignments, 1));
    Print({{"measure", measure},
           {"prompts", num_prompts},
           {"tokens", num_tokens},
           {"dropped", static_cast<double>(step.routing.dropped) / assignments},
           {"rerouted", static_cast<double>(step.routing.rerouted) / assignments},
           {"ms", step.seconds * 1e3},
           {"cpu_ms", step.cpu_seconds * 1e3},
           {"tokens_per_second", num_prompts * num_tokens / step.seconds}},
          step);
  }

  void Decode(int batch) {
    const Measurement step = Measure(batch, 1, kDecodeContext, nullptr);
    Print({{"measure", "decode"},
           {"batch", batch},
           {"ms", step.seconds * 1e3},
           {"tokens_per_second", batch / step.seconds}},
          step);
  }

 private:
  // A step of `batch` sequences with `num_rows` rows each from `first_position` on; the cache holds
  // zeros before it. Without a policy it is routed exactly.
  Measurement Measure(int batch, int num_rows, int first_position, const PinnedPolicy* policy) {
    const int blocks_each = (first_position + num_rows + kBlockTokens - 1) / kBlockTokens;
    std::vector<std::vector<int32_t>> tables(batch);
    StepPlan plan;
    std::vector<RowSampling> sampling(batch);
    std::mt19937 random(1);
    for (int s = 0; s < batch; ++s) {
      for (int b = 0; b < blocks_each; ++b) {
        tables[s].push_back(s / options_.num_ranks * blocks_each + b);
      }
      plan.spans.push_back({plan.num_rows(), num_rows, first_position, tables[s]});
      plan.span_sequences.push_back(s);
      plan.span_ranks.push_back(s % options_.num_ranks);
      for (int r = 0; r < num_rows; ++r) {
        plan.token_ids.push_back(random() % model_.description.vocab_size);
        plan.positions.push_back(first_position + r);
      }
      plan.logit_rows.push_back({.sequence = SequenceId(s), .row = plan.num_rows() - 1});
    }
    for (int row = 0; policy != nullptr && row < plan.num_rows(); ++row) {
      plan.routed_tokens.push_back({.mode = policy->mode,
                                    .policy_idx = 0,
                                    .position = plan.positions[row],
                                    .tie_key = random()});
    }
    if (policy != nullptr) plan.policies = {policy};
    std::vector<double> seconds, cpu_seconds;
    Measurement result;
    for (int i = 0; i <= options_.num_repeats; ++i) {  // the first warms up
      const std::clock_t cpu_begin = std::clock();
      const auto begin = std::chrono::steady_clock::now();
      const auto step = model_.worker->Run(plan, sampling);
      const auto end = std::chrono::steady_clock::now();
      const double cpu = static_cast<double>(std::clock() - cpu_begin) / CLOCKS_PER_SEC;
      if (!step.ok()) {
        std::cerr << step.status() << "\n";
        std::exit(1);
      }
      if (i > 0) {
        seconds.push_back(std::chrono::duration<double>(end - begin).count());
        cpu_seconds.push_back(cpu);
      }
      result.cost = step->cost;
      result.routing = {};
      for (const RoutePlan& route : step->routes) {
        const RouteReport report = ReportOf(route, 0, route.num_rows);
        result.routing.assignments += report.assignments;
        result.routing.dropped += report.dropped;
        result.routing.rerouted += report.rerouted;
      }
    }
    result.seconds = Median(seconds);
    result.cpu_seconds = Median(cpu_seconds);
    return result;
  }

  static double Median(std::vector<double> values) {
    const auto middle = values.begin() + values.size() / 2;
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
  }

  // One sample is not a limit (a neighbour may have had the core): the best of the run.
  void MeasureLimits() {
    const MachineLimits now = cpu::MeasureLimits(options_.isa, pool_);
    const auto raise = [](double value, double& best) { best = std::max(best, value); };
    raise(now.read_bytes_per_second, limits_.read_bytes_per_second);
    raise(now.float_operations_per_second, limits_.float_operations_per_second);
    raise(now.integer_operations_per_second, limits_.integer_operations_per_second);
  }

  void Print(nlohmann::ordered_json line, const Measurement& step) {
    MeasureLimits();
    const StepBound bound = BoundOf(step.cost, limits_);
    const Operations& operations = step.cost.operations;
    line["gb_per_second"] = step.cost.bytes() / step.seconds * 1e-9;
    line["read_limit_gb_per_second"] = limits_.read_bytes_per_second * 1e-9;
    line["share_of_read_limit"] = bound.read_seconds / step.seconds;
    line["float_gop_per_second"] = operations.in_float / step.seconds * 1e-9;
    line["peak_float_gop_per_second"] = limits_.float_operations_per_second * 1e-9;
    line["integer_gop_per_second"] = operations.in_integer / step.seconds * 1e-9;
    line["peak_integer_gop_per_second"] = limits_.integer_operations_per_second * 1e-9;
    line["share_of_peak"] = bound.compute_seconds / step.seconds;
    line["model"] = model_.description.name;
    line["weights"] = model_.description.expert_weight_format;
    line["threads"] = options_.num_threads;
    line["ranks"] = options_.num_ranks;
    line["isa"] = options_.isa;
    line["repeats"] = options_.num_repeats;
    std::cout << line.dump() << std::endl;
  }

  const Options options_;
  LoadedModel model_;
  ThreadPool pool_;
  MachineLimits limits_;
};

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Times whole steps of a model on the CPU back end");
  app.add_option("model_dir", options.model_dir)->required();
  app.add_option("--threads", options.num_threads);
  app.add_option("--ranks", options.num_ranks, "that share the threads")->check(CLI::Range(1, 64));
  app.add_option("--isa", options.isa);
  app.add_option("--repeats", options.num_repeats)->check(CLI::Range(1, 1000));
  app.add_option("--threshold", options.threshold, "of the share, in threshold mode");
  app.add_option("--weights", options.weights)
      ->check(CLI::IsMember({"auto", "f32", "bf16", "int8", "int4"}));
  CLI11_PARSE(app, argc, argv);
  auto backends = MakeBackends("cpu", {.num_threads = options.num_threads, .isa = options.isa},
                               options.num_ranks);
  if (!backends.ok()) {
    std::cerr << backends.status() << "\n";
    return 2;
  }
  options.isa = backends->front()->isa();
  EngineConfig config;
  config.model.model_dir = options.model_dir;
  config.scheduler.max_sequences = 32;
  config.scheduler.max_step_tokens = 1024;
  config.model.expert_weights = config.model.dense_weights = FindWeightFormat(options.weights);
  auto model = LoadModel(config, *std::move(backends));
  if (!model.ok()) {
    std::cerr << model.status() << "\n";
    return 3;
  }
  const ModelDescription& description = model->description;
  const int prompt = std::min(512, description.max_context);
  const PinnedPolicy shared = SharedPolicy(description);
  const PinnedPolicy threshold = ThresholdPolicy(description, options.threshold);
  const bool has_experts = description.num_experts > 0;
  ModelBench bench(options, *std::move(model));
  bench.Prefill(1, prompt, "prefill", nullptr);
  bench.Prefill(2, prompt, "prefill_pair", nullptr);
  if (has_experts) {
    bench.Prefill(1, prompt, "prefill_shared", &shared);
    bench.Prefill(1, prompt, "prefill_threshold", &threshold);
  }
  for (const int batch : {1, 8, 32}) bench.Decode(batch);
  return 0;
}

}  // namespace
}  // namespace gatehouse::bench

int main(int argc, char** argv) { return gatehouse::bench::Main(argc, argv); }
