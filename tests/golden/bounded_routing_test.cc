// Bounds through whole checkpoints of every family: bounds that never bind change no bit, and
// bounds that do leave isolated requests alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "engine/loaded_model.h"
#include "kernels/backend.h"

namespace gatehouse {
namespace {

constexpr int kBlockTokens = 16;  // of the KV cache
constexpr int kPromptTokens = 40;

std::vector<std::string> GoldenModels() {
  std::vector<std::string> dirs;
  for (const auto& entry :
       std::filesystem::directory_iterator(GATEHOUSE_SOURCE_DIR "/tests/golden")) {
    if (std::filesystem::exists(entry.path() / "config.json")) dirs.push_back(entry.path());
  }
  return dirs;
}

absl::StatusOr<LoadedModel> Load(const std::string& dir, int num_ranks = 1) {
  EngineConfig config;
  config.model.model_dir = dir;
  config.cache.block_tokens = kBlockTokens;
  auto backends = MakeBackends("cpu", {.num_threads = 2}, num_ranks);
  if (!backends.ok()) return backends.status();
  return LoadModel(config, *std::move(backends));
}

PinnedPolicy Pinned(const ModelDescription& model, TokenMode mode, Affinity affinity) {
  const size_t num_layers = model.moe_layers.size();
  PinnedPolicy pinned{.mode = mode,
                      .affinity = affinity,
                      .placement = LinearPlacement(model.num_experts, 2),
                      .layer_exempt = std::vector<uint8_t>(num_layers)};
  pinned.policy.block_tokens = kBlockTokens;
  pinned.policy.reroute = std::min(4, model.num_experts);
  pinned.policy.coverage = false;
  pinned.policy.renormalise_after_drop = true;
  if (mode == TokenMode::kThreshold) {
    pinned.thresholds.assign(num_layers, std::vector<float>(model.num_experts, -INFINITY));
  }
  return pinned;
}

// Rows [first, first + count) of the prompt of a request whose blocks follow one another.
struct Chunk {
  int request = 0;
  int first = 0;
  int count = kPromptTokens;
};

// What a request's rows gave, by position: experts, weights and log-probabilities of every layer.
using Trace = std::map<int, std::vector<float>>;

class Runner {
 public:
  explicit Runner(LoadedModel model, int num_ranks = 1)
      : model_(std::move(model)), num_ranks_(num_ranks) {}
  const ModelDescription& description() const { return model_.description; }

  // One step; request r on rank r modulo their number, under policies[r], or exact where that is
  // null.
  void Run(const std::vector<Chunk>& chunks, const std::vector<const PinnedPolicy*>& policies,
           std::vector<Trace>& traces) {
    StepPlan plan;
    std::vector<std::vector<int32_t>> tables(chunks.size());
    bool all_exact = true;
    for (size_t i = 0; i < chunks.size(); ++i) {
      const Chunk& chunk = chunks[i];
      constexpr int kBlocks = (kPromptTokens + kBlockTokens - 1) / kBlockTokens;
      for (int b = 0; b < kBlocks; ++b) tables[i].push_back(chunk.request * kBlocks + b);
      plan.spans.push_back({plan.num_rows(), chunk.count, chunk.first, tables[i]});
      plan.span_sequences.push_back(chunk.request);
      plan.span_ranks.push_back(chunk.request % num_ranks_);
      const PinnedPolicy* pinned = policies[chunk.request];
      for (int p = chunk.first; p < chunk.first + chunk.count; ++p) {
        const auto kappa = static_cast<uint64_t>(chunk.request * 1000 + p) * 0x9E3779B97F4A7C15u;
        plan.routed_tokens.push_back(
            {.mode = pinned == nullptr ? TokenMode::kExact : pinned->mode,
             .policy_idx = pinned == nullptr ? -1 : static_cast<int32_t>(plan.policies.size()),
             .request = chunk.request,
             .position = p,
             .domain = chunk.request,
             .tie_key = kappa});
        plan.logit_rows.push_back({.sequence = static_cast<SequenceId>(chunk.request),
                                   .row = plan.num_rows(),
                                   .position = p});
        plan.token_ids.push_back(TokenAt(chunk.request, p));
        plan.positions.push_back(p);
      }
      all_exact = all_exact && pinned == nullptr;
      if (pinned != nullptr) plan.policies.push_back(pinned);
    }
    if (all_exact) plan.routed_tokens.clear();
    const std::vector<RowSampling> sampling(plan.logit_rows.size(), {.num_top_logprobs = 3});
    const absl::StatusOr<StepResult> result = model_.worker->Run(plan, sampling);
    ASSERT_TRUE(result.ok()) << result.status();
    for (const uint8_t failed : result->row_failed) ASSERT_EQ(failed, 0);
    for (const LogitRow& row : plan.logit_rows) {
      std::vector<float>& trace = traces[row.sequence][row.position];
      for (const RoutePlan& route : result->routes) {
        for (int at = row.row * route.top_k; at < (row.row + 1) * route.top_k; ++at) {
          trace.push_back(static_cast<float>(route.slot_experts[at]));
          trace.push_back(route.slot_weights[at]);
        }
      }
      for (const TokenLogprob& top : result->samples[&row - plan.logit_rows.data()].top) {
        trace.push_back(static_cast<float>(top.id));
        trace.push_back(top.logprob);
        ASSERT_TRUE(std::isfinite(top.logprob));
      }
    }
    for (const RoutePlan& route : result->routes) {
      ASSERT_TRUE(route.Validate().ok()) << route.Validate();
      num_dropped_ += ReportOf(route, 0, route.num_rows).dropped;
    }
  }
  int64_t num_dropped() const { return num_dropped_; }

 private:
  int32_t TokenAt(int request, int position) const {
    const auto mixed = static_cast<uint32_t>(request * 131 + position) * 2654435761u;
    return static_cast<int32_t>((mixed >> 7) % static_cast<uint32_t>(description().vocab_size));
  }

  LoadedModel model_;
  const int num_ranks_;
  int64_t num_dropped_ = 0;
};

TEST(BoundedRoutingTest, InfiniteBoundsAreExactBitForBitInEveryFamily) {
  for (const std::string& dir : GoldenModels()) {
    SCOPED_TRACE(dir);
    absl::StatusOr<LoadedModel> model = Load(dir);
    ASSERT_TRUE(model.ok()) << model.status();
    Runner runner(*std::move(model));
    std::vector<Trace> exact(1);
    runner.Run({{.request = 0}}, {nullptr}, exact);
    for (const TokenMode mode :
         {TokenMode::kThreshold, TokenMode::kBlock, TokenMode::kBlockCausal, TokenMode::kShared}) {
      for (const Affinity affinity : {Affinity::kGate, Affinity::kCosine}) {
        const PinnedPolicy pinned = Pinned(runner.description(), mode, affinity);
        std::vector<Trace> bounded(1);
        runner.Run({{.request = 0}}, {&pinned}, bounded);
        EXPECT_EQ(bounded, exact) << "mode " << static_cast<int>(mode);
      }
    }
    EXPECT_EQ(runner.num_dropped(), 0);
  }
}

// Request 0 alone in one step; then in chunks that end with its blocks, each step shared with two
// requests that are bounded another way.
TEST(BoundedRoutingTest, IsolatedRequestsOfEveryFamilyDoNotSeeChunksOrCompany) {
  for (const std::string& dir : GoldenModels()) {
    SCOPED_TRACE(dir);
    absl::StatusOr<LoadedModel> model = Load(dir);
    ASSERT_TRUE(model.ok()) << model.status();
    Runner runner(*std::move(model));
    const ModelDescription& description = runner.description();
    if (description.num_experts < 4) continue;  // nothing to bound
    PinnedPolicy shared = Pinned(description, TokenMode::kShared, Affinity::kGate);
    shared.policy.capacity = {.factor = 0.7, .min_mean_load = 0, .device_factor = 0.8};
    for (const TokenMode mode :
         {TokenMode::kThreshold, TokenMode::kBlock, TokenMode::kBlockCausal}) {
      PinnedPolicy own = Pinned(description, mode, Affinity::kShare);
      own.policy.capacity.factor = 0.7;
      for (auto& of_layer : own.thresholds) {
        std::fill(of_layer.begin(), of_layer.end(), 0.9f / static_cast<float>(description.top_k));
      }
      const std::vector<const PinnedPolicy*> policies = {&own, &shared, nullptr};
      std::vector<Trace> alone(3), among(3);
      const int64_t dropped_before = runner.num_dropped();
      runner.Run({{.request = 0}}, policies, alone);
      EXPECT_EQ(runner.num_dropped() > dropped_before, description.top_k > 1);
      runner.Run({{.request = 1, .count = 21}, {.request = 0, .count = 16}}, policies, among);
      runner.Run({{.request = 0, .first = 16, .count = 16}, {.request = 2, .count = 9}}, policies,
                 among);
      runner.Run({{.request = 2, .first = 9, .count = 8},
                  {.request = 0, .first = 32, .count = 8},
                  {.request = 1, .first = 21, .count = 19}},
                 policies, among);
      EXPECT_EQ(among[0], alone[0]) << "mode " << static_cast<int>(mode);
    }
  }
}

// Three requests in every step: two under the shared bounds of two virtual devices, one under the
// policy `isolated` or exact where that is null.
std::vector<Trace> TracesOnRanks(const std::string& dir, int num_ranks, const PinnedPolicy& shared,
                                 const PinnedPolicy* isolated) {
  absl::StatusOr<LoadedModel> model = Load(dir, num_ranks);
  EXPECT_TRUE(model.ok()) << model.status();
  Runner runner(*std::move(model), num_ranks);
  std::vector<Trace> traces(3);
  const std::vector<const PinnedPolicy*> policies = {&shared, isolated, &shared};
  for (const int first : {0, 16, 32}) {
    const int count = std::min(16, kPromptTokens - first);
    runner.Run({{.request = 2, .first = first, .count = count},
                {.request = 0, .first = first, .count = count},
                {.request = 1, .first = first, .count = count}},
               policies, traces);
  }
  return traces;
}

TEST(BoundedRoutingTest, RanksDecideAndComputeAsOneDoesInEveryFamily) {
  for (const std::string& dir : GoldenModels()) {
    SCOPED_TRACE(dir);
    absl::StatusOr<LoadedModel> model = Load(dir);
    ASSERT_TRUE(model.ok()) << model.status();
    const ModelDescription description = model->description;
    PinnedPolicy shared = Pinned(description, TokenMode::kShared, Affinity::kCosine);
    if (description.num_experts >= 4) {
      shared.policy.capacity = {.factor = 0.7, .min_mean_load = 0, .device_factor = 0.8};
    }
    PinnedPolicy isolated = Pinned(description, TokenMode::kBlockCausal, Affinity::kShare);
    isolated.policy.capacity.factor = 0.7;
    for (const PinnedPolicy* own : {&isolated, static_cast<PinnedPolicy*>(nullptr)}) {
      const std::vector<Trace> alone = TracesOnRanks(dir, 1, shared, own);
      for (const int num_ranks : {2, 3, 8}) {
        EXPECT_EQ(TracesOnRanks(dir, num_ranks, shared, own), alone) << num_ranks << " ranks";
      }
    }
  }
}

}  // namespace
}  // namespace gatehouse
