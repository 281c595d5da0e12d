// A whole layer under bounds: what its plan says is what it computes, and exact or isolated rows
// have the same bits in any company.
#include "engine/moe/moe_layer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <random>

namespace gatehouse {
namespace {

constexpr int kHidden = 24, kWidth = 16, kRows = 48, kMaxRows = 64;

std::vector<float> Normal(std::mt19937& random, size_t count, float scale) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

struct Rows {
  std::vector<float> x;  // [num_rows, kHidden]
  std::vector<RoutedToken> tokens;
  int num_rows() const { return static_cast<int>(tokens.size()); }
};

struct Outcome {
  RoutePlan plan;
  std::vector<float> out;  // [num_rows, kHidden]
  std::vector<uint8_t> failed;
  std::span<const float> row(int r) const { return std::span(out).subspan(r * kHidden, kHidden); }
};

// One layer with random weights of some recipe; a shared expert or none.
class LayerUnderTest {
 public:
  LayerUnderTest(const GateRecipe& recipe, int num_experts, bool has_shared)
      : num_experts_(num_experts), top_k_(recipe.top_k) {
    std::mt19937 random(5);
    router_ = Normal(random, num_experts * kHidden, 0.4f);
    for (int c = 0; c < kHidden; ++c) router_[c] *= 3;  // expert 0 is wanted most
    experts_ = Normal(random, 3 * num_experts * kWidth * kHidden, 0.2f);
    shared_ = Normal(random, 3 * kWidth * kHidden, 0.2f);
    GateWeights weights;
    const WeightView router{.data = router_.data(), .num_rows = num_experts, .num_cols = kHidden};
    weights.router = *backend_->PackMatrix({&router, 1}, WeightFormat::kF32);
    for (int e = 0; e < num_experts; ++e) {
      double sum = 0;
      for (int c = 0; c < kHidden; ++c) sum += std::pow(router_[e * kHidden + c], 2);
      weights.row_norms.push_back(static_cast<float>(std::sqrt(sum)));
    }
    std::optional<SharedExpert> shared;
    if (has_shared) {
      shared.emplace(DenseMlp(Pack(shared_.data(), 1)), nullptr);
    }
    layer_.emplace(Gate(recipe, std::move(weights)),
                   Experts({}, Pack(experts_.data(), num_experts)), std::move(shared));
    memory_.resize(int64_t{kMaxRows} *
                   (num_experts + recipe.top_k * (kWidth + kHidden) + kWidth + kHidden + 1));
  }

  Outcome Forward(const Rows& rows, std::span<const PinnedPolicy* const> policies,
                  RouteObserver* observer = nullptr) {
    Outcome outcome{.out = std::vector<float>(rows.x.size(), NAN),
                    .failed = std::vector<uint8_t>(rows.num_rows())};
    const StepRouting routing{
        .tokens = policies.empty() ? std::span<const RoutedToken>() : std::span(rows.tokens),
        .policies = policies,
        .observer = observer};
    backend_->BeginStep({});
    LocalDispatcher dispatcher(*backend_);
    dispatcher.BeginStep(rows.num_rows());
    outcome.plan =
        *layer_->Forward(*backend_, dispatcher, {rows.x.data(), rows.num_rows(), kHidden},
                         {.routing = routing, .moe_layer_idx = 0, .row_failed = outcome.failed},
                         Workspace(), {outcome.out.data(), rows.num_rows(), kHidden});
    EXPECT_TRUE(backend_->Finish().ok());
    EXPECT_TRUE(outcome.plan.Validate().ok()) << outcome.plan.Validate();
    return outcome;
  }

  // The feed-forward of expert e (or of the shared one) for one row, in double.
  std::vector<double> Expert(int e, const float* x) const {
    return FeedForward(experts_.data() + int64_t{e} * 3 * kWidth * kHidden, x);
  }
  std::vector<double> Shared(const float* x) const { return FeedForward(shared_.data(), x); }
  int num_experts() const { return num_experts_; }
  int top_k() const { return top_k_; }

 private:
  static WeightView View(const float* data, int rows, int cols) {
    return {.data = data, .num_rows = rows, .num_cols = cols};
  }
  std::unique_ptr<PackedExperts> Pack(const float* weights, int count) {
    std::vector<ExpertSource> sources;
    for (int e = 0; e < count; ++e, weights += 3 * kWidth * kHidden) {
      sources.push_back({.gate = View(weights, kWidth, kHidden),
                         .up = View(weights + kWidth * kHidden, kWidth, kHidden),
                         .down = View(weights + 2 * kWidth * kHidden, kHidden, kWidth)});
    }
    return *backend_->PackExperts(sources, WeightFormat::kF32);
  }
  static std::vector<double> FeedForward(const float* weights, const float* x) {
    std::vector<double> hidden(kWidth), out(kHidden);
    for (int i = 0; i < kWidth; ++i) {
      double gate = 0, up = 0;
      for (int c = 0; c < kHidden; ++c) {
        gate += double{weights[i * kHidden + c]} * x[c];
        up += double{weights[kWidth * kHidden + i * kHidden + c]} * x[c];
      }
      hidden[i] = gate / (1 + std::exp(-gate)) * up;
    }
    for (int c = 0; c < kHidden; ++c) {
      for (int i = 0; i < kWidth; ++i) {
        out[c] += weights[2 * kWidth * kHidden + c * kWidth + i] * hidden[i];
      }
    }
    return out;
  }
  MoeWorkspace Workspace() {
    float* next = memory_.data();
    const auto take = [&](int64_t rows, int64_t cols) {
      const MatrixView<float> view(next, rows, cols);
      next += rows * cols;
      return view;
    };
    MoeWorkspace workspace;
    workspace.logits = take(kMaxRows, num_experts_);
    workspace.hidden = take(int64_t{kMaxRows} * top_k_, kWidth);
    workspace.expert_rows = take(int64_t{kMaxRows} * top_k_, kHidden);
    workspace.shared_hidden = take(kMaxRows, kWidth);
    workspace.shared_rows = take(kMaxRows, kHidden);
    workspace.shared_gates = take(kMaxRows, 1);
    return workspace;
  }

  const int num_experts_, top_k_;
  std::unique_ptr<Backend> backend_ = *MakeBackend("cpu", {.num_threads = 2});
  std::vector<float> router_, experts_, shared_, memory_;
  std::optional<MoeLayer> layer_;
};

std::vector<GateRecipe> Recipes() {
  std::vector<GateRecipe> recipes;
  for (const GateScore score :
       {GateScore::kSoftmax, GateScore::kSoftmaxOfChosen, GateScore::kSigmoid}) {
    for (const bool renormalise : {false, true}) {
      for (const int num_groups : {1, 3}) {
        recipes.push_back({.score = score,
                           .top_k = 2,
                           .renormalise = renormalise,
                           .scale = 1.5f,
                           .num_groups = num_groups,
                           .num_open_groups = (num_groups + 1) / 2});
      }
    }
  }
  return recipes;
}

constexpr TokenMode kBoundedModes[] = {TokenMode::kThreshold, TokenMode::kBlock,
                                       TokenMode::kBlockCausal, TokenMode::kShared};

PinnedPolicy Pinned(TokenMode mode, int num_experts) {
  PinnedPolicy pinned{.mode = mode, .placement = LinearPlacement(num_experts, 2)};
  pinned.layer_exempt = {0};
  pinned.policy.block_tokens = 8;
  pinned.policy.reroute = 3;
  pinned.policy.coverage = false;
  pinned.policy.capacity.min_mean_load = 0;
  if (mode == TokenMode::kThreshold) {
    pinned.thresholds = {std::vector<float>(num_experts, -INFINITY)};
  }
  return pinned;
}

// The same, and it drops.
PinnedPolicy Tight(TokenMode mode, int num_experts) {
  PinnedPolicy pinned = Pinned(mode, num_experts);
  pinned.policy.capacity.factor = 0.6;
  pinned.policy.capacity.device_factor = 0.8;
  if (mode == TokenMode::kThreshold) {
    pinned.affinity = Affinity::kShare;
    pinned.thresholds = {std::vector<float>(num_experts, 0.4f)};
  }
  return pinned;
}

Rows RandomRows(uint32_t seed, TokenMode mode) {
  std::mt19937 random(seed);
  Rows rows{.x = Normal(random, kRows * kHidden, 1)};
  for (int row = 0; row < kRows; ++row) {
    rows.tokens.push_back({.mode = mode,
                           .policy_idx = 0,
                           .request = row / 24,
                           .position = row % 24,
                           .home_device = row / 24,
                           .tie_key = random()});
  }
  return rows;
}

Rows Take(const Rows& from, const std::vector<int>& which) {
  Rows rows;
  for (const int row : which) {
    rows.x.insert(rows.x.end(), from.x.begin() + row * kHidden,
                  from.x.begin() + (row + 1) * kHidden);
    rows.tokens.push_back(from.tokens[row]);
  }
  return rows;
}

TEST(MoeLayerTest, InfiniteBoundsAreExactBitForBitInEveryRecipe) {
  for (const GateRecipe& recipe : Recipes()) {
    for (const bool has_shared : {false, true}) {
      LayerUnderTest layer(recipe, 12, has_shared);
      for (const TokenMode mode : kBoundedModes) {
        for (const Affinity affinity : {Affinity::kGate, Affinity::kShare, Affinity::kCosine}) {
          PinnedPolicy pinned = Pinned(mode, 12);
          pinned.affinity = affinity;
          const PinnedPolicy* const policies[] = {&pinned};
          const Rows rows = RandomRows(1, mode);
          const Outcome exact = layer.Forward(rows, {}), bounded = layer.Forward(rows, policies);
          EXPECT_TRUE(exact.plan.exact());
          EXPECT_FALSE(bounded.plan.exact());
          EXPECT_TRUE(ReportOf(bounded.plan, 0, kRows).exact());
          ASSERT_EQ(exact.out, bounded.out);
          ASSERT_EQ(exact.plan.slot_experts, bounded.plan.slot_experts);
          ASSERT_EQ(exact.plan.slot_weights, bounded.plan.slot_weights);
          for (int row = 0; row < kRows; ++row) {
            ASSERT_NEAR(exact.plan.row_mass[row], bounded.plan.row_mass[row], 1e-6);
          }
        }
      }
    }
  }
}

// y_t = sum over (i, c) of Cmb[t, i, c] E_i(sum over s of Dsp[s, i, c] x_s), in double.
TEST(MoeLayerTest, CombinesWhatDenseDispatchAndCombineTensorsSay) {
  for (const TokenMode mode : kBoundedModes) {
    LayerUnderTest layer({.top_k = 3, .renormalise = true}, 10, /*has_shared=*/true);
    const PinnedPolicy pinned = Tight(mode, 10);
    const PinnedPolicy* const policies[] = {&pinned};
    const Rows rows = RandomRows(2, mode);
    const Outcome outcome = layer.Forward(rows, policies);
    const RouteReport report = ReportOf(outcome.plan, 0, kRows);
    EXPECT_GT(report.dropped, 0);
    EXPECT_EQ(report.rerouted > 0, mode != TokenMode::kThreshold);
    const RoutePlan& plan = outcome.plan;
    std::vector<double> y(kRows * kHidden);
    for (int row = 0; row < kRows; ++row) {
      const std::vector<double> shared = layer.Shared(&rows.x[row * kHidden]);
      std::copy(shared.begin(), shared.end(), y.begin() + row * kHidden);
    }
    for (int e = 0; e < layer.num_experts(); ++e) {
      const int places = plan.expert_begin[e + 1] - plan.expert_begin[e];
      for (int c = 0; c < places; ++c) {
        std::vector<double> dispatch(kRows), combine(kRows);
        std::vector<float> input(kHidden);
        for (int row = 0; row < kRows; ++row) {
          for (int slot = 0; slot < layer.top_k(); ++slot) {
            const int at = row * layer.top_k() + slot;
            if (plan.slot_experts[at] != e || plan.row_ids[plan.expert_begin[e] + c] != row)
              continue;
            dispatch[row] = 1;
            combine[row] = plan.slot_weights[at];
          }
          for (int i = 0; i < kHidden; ++i) {
            input[i] += static_cast<float>(dispatch[row]) * rows.x[row * kHidden + i];
          }
        }
        const std::vector<double> output = layer.Expert(e, input.data());
        for (int row = 0; row < kRows; ++row) {
          for (int i = 0; i < kHidden; ++i) y[row * kHidden + i] += combine[row] * output[i];
        }
      }
    }
    for (size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(outcome.out[i], y[i], 2e-5) << i;
  }
}

TEST(MoeLayerTest, WithEveryPairEvictedOnlyTheSharedExpertIsLeft) {
  for (const bool has_shared : {false, true}) {
    LayerUnderTest layer({.top_k = 2}, 12, has_shared);
    PinnedPolicy pinned = Pinned(TokenMode::kShared, 12);
    pinned.policy.capacity.capacity = 0;
    const PinnedPolicy* const policies[] = {&pinned};
    const Rows rows = RandomRows(3, TokenMode::kShared);
    const Outcome outcome = layer.Forward(rows, policies);
    EXPECT_EQ(outcome.plan.num_pairs(), 0);
    EXPECT_THAT(outcome.plan.row_marks, testing::Each(RowMark::kBare));
    for (int row = 0; row < kRows; ++row) {
      const std::vector<double> shared = layer.Shared(&rows.x[row * kHidden]);
      for (int i = 0; i < kHidden; ++i) {
        ASSERT_NEAR(outcome.row(row)[i], has_shared ? shared[i] : 0, 2e-5);
      }
    }
  }
}

// Request 0 alone, and among rows of other requests in other modes, in another order, and cut into
// steps where its blocks end.
TEST(MoeLayerTest, ExactAndIsolatedRowsHaveTheSameBitsInAnyCompanyOrderAndChunking) {
  LayerUnderTest layer({.top_k = 2, .renormalise = true}, 12, /*has_shared=*/true);
  const PinnedPolicy shared = Tight(TokenMode::kShared, 12);
  std::mt19937 random(4);
  for (const TokenMode mode :
       {TokenMode::kExact, TokenMode::kThreshold, TokenMode::kBlock, TokenMode::kBlockCausal}) {
    PinnedPolicy own = Tight(mode, 12);
    const PinnedPolicy* const policies[] = {&own, &shared};
    Rows rows = RandomRows(5, mode);
    for (RoutedToken& token : rows.tokens) {
      if (token.request == 0) continue;
      token.mode = TokenMode::kShared;
      token.policy_idx = 1;
    }
    std::vector<int> own_rows(24);
    std::iota(own_rows.begin(), own_rows.end(), 0);
    const Outcome alone = layer.Forward(Take(rows, own_rows), policies);
    EXPECT_EQ(ReportOf(alone.plan, 0, 24).exact(), mode == TokenMode::kExact);
    for (int round = 0; round < 50; ++round) {
      std::vector<int> order;
      const int begin = 8 * (round % 3), end = begin + 8 * (1 + round % (3 - round % 3));
      for (int row = 0; row < kRows; ++row) {
        if ((row >= begin && row < end) || (row >= 24 && random() % 2 == 0)) order.push_back(row);
      }
      std::shuffle(order.begin(), order.end(), random);
      const Outcome among = layer.Forward(Take(rows, order), policies);
      for (size_t i = 0; i < order.size(); ++i) {
        if (order[i] >= 24) continue;
        ASSERT_TRUE(
            std::equal(among.row(i).begin(), among.row(i).end(), alone.row(order[i]).begin()))
            << "mode " << static_cast<int>(mode) << ", round " << round << ", row " << order[i];
      }
    }
  }
}

TEST(MoeLayerTest, AnExemptLayerRoutesExactly) {
  LayerUnderTest layer({.top_k = 2}, 12, /*has_shared=*/false);
  PinnedPolicy pinned = Tight(TokenMode::kShared, 12);
  const PinnedPolicy* const policies[] = {&pinned};
  const Rows rows = RandomRows(6, TokenMode::kShared);
  EXPECT_FALSE(layer.Forward(rows, policies).plan.exact());
  pinned.layer_exempt = {1};
  const Outcome exempt = layer.Forward(rows, policies);
  EXPECT_TRUE(exempt.plan.exact());
  EXPECT_EQ(exempt.out, layer.Forward(rows, {}).out);
}

TEST(MoeLayerTest, ALayersOwnPolicyHoldsThere) {
  LayerUnderTest layer({.top_k = 2}, 12, /*has_shared=*/false);
  PinnedPolicy pinned = Tight(TokenMode::kShared, 12);
  const PinnedPolicy* const policies[] = {&pinned};
  const Rows rows = RandomRows(6, TokenMode::kShared);
  EXPECT_GT(ReportOf(layer.Forward(rows, policies).plan, 0, kRows).dropped, 0);
  pinned.layer_policies = {pinned.policy};
  pinned.layer_policies[0].capacity = {};
  EXPECT_EQ(ReportOf(layer.Forward(rows, policies).plan, 0, kRows).dropped, 0);
}

TEST(MoeLayerTest, ALogitThatIsNotFiniteFailsItsWholeRequestAndNoOther) {
  LayerUnderTest layer({.top_k = 2}, 12, /*has_shared=*/false);
  const PinnedPolicy pinned = Tight(TokenMode::kShared, 12);
  const PinnedPolicy* const policies[] = {&pinned};
  Rows rows = RandomRows(7, TokenMode::kShared);
  rows.x[30 * kHidden] = NAN;  // of request 1
  const Outcome outcome = layer.Forward(rows, policies);
  std::vector<int> rest(24);
  std::iota(rest.begin(), rest.end(), 0);
  const Outcome alone = layer.Forward(Take(rows, rest), policies);
  for (int row = 0; row < kRows; ++row) {
    EXPECT_EQ(outcome.failed[row], row >= 24 ? 1 : 0);
    EXPECT_EQ(ReportOf(outcome.plan, row, row + 1).assignments, row >= 24 ? 0 : 2);
    if (row >= 24) continue;
    EXPECT_THAT(outcome.row(row), testing::ElementsAreArray(alone.row(row)));
  }
}

// The observer sees more ranks than a decision needs, and its presence changes nothing.
TEST(MoeLayerTest, AnObserverSeesEveryRankAndChangesNoBit) {
  class Watcher : public RouteObserver {
   public:
    void OnLayer(int moe_layer_idx, const GateScores& seen, const RouteDecision& decided) override {
      EXPECT_EQ(moe_layer_idx, 0);
      scores = seen;
      decision = decided;
    }
    GateScores scores;
    RouteDecision decision;
  } watcher;
  LayerUnderTest layer({.top_k = 2}, 12, /*has_shared=*/true);
  const PinnedPolicy pinned = Tight(TokenMode::kShared, 12);
  const PinnedPolicy* const policies[] = {&pinned};
  const Rows rows = RandomRows(8, TokenMode::kShared);
  const Outcome bounded = layer.Forward(rows, policies, &watcher);
  EXPECT_EQ(bounded.out, layer.Forward(rows, policies).out);
  EXPECT_EQ(watcher.scores.num_ranked, 5);  // 2 chosen, 3 to reroute to
  EXPECT_EQ(Summarise(watcher.decision).dropped, ReportOf(bounded.plan, 0, kRows).dropped);
  const Outcome exact = layer.Forward(rows, {}, &watcher);
  EXPECT_EQ(exact.out, layer.Forward(rows, {}).out);
  EXPECT_EQ(watcher.decision.pairs.size(), 2 * kRows);
}

}  // namespace
}  // namespace gatehouse
