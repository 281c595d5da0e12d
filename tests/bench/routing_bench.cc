// The decisions of one MoE layer: 512 rows, 64 experts, top 8, on one thread. From logits (made by
// a router of width 8, which is counted in and costs next to nothing) to the plan that the
// dispatcher carries out: the gate's ranking, the bounds, both orders of the pairs. Logits are
// skewed, so that bounds bind: the most wanted expert gets some three times its share.
#include <benchmark/benchmark.h>

#include <cmath>
#include <random>

#include "engine/moe/gate.h"
#include "engine/moe/router.h"
#include "engine/moe/step_routing.h"
#include "kernels/base/check.h"

namespace gatehouse {
namespace {

constexpr int kRows = 512, kExperts = 64, kTopK = 8, kWidth = 8;

struct Layer {
  Layer() {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> router(kExperts * kWidth);
    for (int e = 0; e < kExperts; ++e) {
      for (int c = 0; c < kWidth; ++c) router[e * kWidth + c] = normal(random);
      router[e * kWidth] += 1.5f * std::exp(-0.1f * static_cast<float>(e));
    }
    for (int i = 0; i < kRows * kWidth; ++i)
      x.push_back(normal(random) + (i % kWidth == 0 ? 1 : 0));
    const WeightView view{.data = router.data(), .num_rows = kExperts, .num_cols = kWidth};
    GateWeights weights;
    weights.router = *backend->PackMatrix({&view, 1}, WeightFormat::kF32);
    weights.row_norms.assign(kExperts, 1);
    gate.emplace(GateRecipe{.top_k = kTopK}, std::move(weights));
    logits.resize(kRows * kExperts);
    row_failed.assign(kRows, 0);
  }

  std::unique_ptr<Backend> backend = *MakeBackend("cpu", {.num_threads = 1});
  std::optional<Gate> gate;
  std::vector<float> x, logits;
  std::vector<uint8_t> row_failed;
};

MatrixView<const float> RowsOf(const Layer& layer) { return {layer.x.data(), kRows, kWidth}; }
MatrixView<float> LogitsOf(Layer& layer) { return {layer.logits.data(), kRows, kExperts}; }

void ReportPerToken(benchmark::State& state) {
  state.counters["per_token"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * kRows,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void RouteExactly(benchmark::State& state) {
  Layer layer;
  for (auto _ : state) {
    const GateChoice choice =
        layer.gate->Choose(*layer.backend, RowsOf(layer), LogitsOf(layer), layer.row_failed);
    benchmark::DoNotOptimize(RouteExact(choice));
  }
  ReportPerToken(state);
}

// Two requests of 256 rows, under one policy and in one domain.
void RouteUnder(benchmark::State& state, const PinnedPolicy& pinned) {
  Layer layer;
  std::vector<RoutedToken> tokens;
  std::mt19937_64 random(2);
  for (int row = 0; row < kRows; ++row) {
    tokens.push_back({.mode = pinned.mode,
                      .policy_idx = 0,
                      .request = row / 256,
                      .position = row % 256,
                      .home_device = row / 256 % pinned.placement.num_devices,
                      .tie_key = random()});
  }
  const PinnedPolicy* const policies[] = {&pinned};
  const StepRouting routing{.tokens = tokens, .policies = policies};
  const ExpertPlacement placement = LinearPlacement(kExperts, 1);
  const RowLimits no_limits;
  RouteReport report;
  for (auto _ : state) {
    const LayerRouting rules = RoutingOfLayer(routing, 0, kRows, kTopK);
    const GateScores scores = layer.gate->Score(
        *layer.backend, RowsOf(layer), LogitsOf(layer),
        {.num_ranked = rules.num_ranked, .affinities = rules.affinities}, layer.row_failed);
    const auto decision = RouteBounded({.scores = scores,
                                        .tokens = rules.tokens,
                                        .policies = rules.policies,
                                        .placement = placement,
                                        .limits = no_limits});
    GATEHOUSE_CHECK(decision.ok());
    const RoutePlan plan = PlanOf(*decision, scores);
    benchmark::DoNotOptimize(plan.row_ids.data());
    report = ReportOf(plan, 0, kRows);
  }
  ReportPerToken(state);
  const auto assignments = static_cast<double>(report.assignments);
  state.counters["rerouted"] = static_cast<double>(report.rerouted) / assignments;
  state.counters["dropped"] = static_cast<double>(report.dropped) / assignments;
}

PinnedPolicy Pinned(TokenMode mode, int num_devices) {
  PinnedPolicy pinned{.mode = mode, .placement = LinearPlacement(kExperts, num_devices)};
  pinned.layer_exempt = {0};
  return pinned;
}

// The server's default bound, on eight devices.
void RouteSharedDevices(benchmark::State& state) {
  PinnedPolicy pinned = Pinned(TokenMode::kShared, 8);
  pinned.policy.capacity.device_factor = 1.25;
  pinned.policy.reroute = 8;
  RouteUnder(state, pinned);
}
void RouteSharedExperts(benchmark::State& state) {
  PinnedPolicy pinned = Pinned(TokenMode::kShared, 8);
  pinned.policy.capacity.factor = 1.25;
  pinned.policy.capacity.affinity_mass = 0.95;
  pinned.policy.capacity.device_factor = 1.1;
  pinned.policy.reroute = 8;
  RouteUnder(state, pinned);
}
void RouteThreshold(benchmark::State& state) {
  PinnedPolicy pinned = Pinned(TokenMode::kThreshold, 1);
  pinned.affinity = Affinity::kShare;
  pinned.thresholds = {std::vector<float>(kExperts, 0.06f)};
  RouteUnder(state, pinned);
}
void RouteBlock(benchmark::State& state) {
  PinnedPolicy pinned = Pinned(TokenMode::kBlock, 1);
  pinned.policy.capacity.factor = 1.25;
  pinned.policy.block_tokens = 64;
  pinned.policy.reroute = 8;
  RouteUnder(state, pinned);
}
void RouteBlockCausal(benchmark::State& state) {
  PinnedPolicy pinned = Pinned(TokenMode::kBlockCausal, 1);
  pinned.policy.capacity.factor = 1.25;
  pinned.policy.block_tokens = 64;
  pinned.policy.reroute = 8;
  RouteUnder(state, pinned);
}

BENCHMARK(RouteExactly);
BENCHMARK(RouteSharedDevices);
BENCHMARK(RouteSharedExperts);
BENCHMARK(RouteThreshold);
BENCHMARK(RouteBlock);
BENCHMARK(RouteBlockCausal);

}  // namespace
}  // namespace gatehouse

BENCHMARK_MAIN();
