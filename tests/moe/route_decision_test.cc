#include "engine/moe/route_decision.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "engine/moe/router.h"
#include "tests/moe/random_step.h"

namespace gatehouse {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr auto kExpert = static_cast<size_t>(EvictionCause::kExpert);
constexpr auto kDevice = static_cast<size_t>(EvictionCause::kDevice);
constexpr auto kThreshold = static_cast<size_t>(EvictionCause::kThreshold);
constexpr auto kCoverage = static_cast<size_t>(EvictionCause::kCoverage);

// Shared rows with these gate values; the key of a row is its index.
RandomStep StepOf(int top_k, const std::vector<std::vector<float>>& gates) {
  RandomStep step;
  step.scores.num_experts = step.scores.num_ranked = static_cast<int>(gates[0].size());
  step.scores.top_k = top_k;
  step.placement = LinearPlacement(step.scores.num_experts, 1);
  for (size_t row = 0; row < gates.size(); ++row) {
    AppendRow(step, gates[row]);
    step.tokens.push_back(
        {.mode = TokenMode::kShared, .policy_idx = 0, .request = 0, .tie_key = row});
  }
  step.policy.capacity.min_mean_load = 0;
  return step;
}

BoundsOutcome OutcomeOf(const RandomStep& step) {
  return OutcomeOf(step.Decide(), step.scores.num_experts);
}

int64_t NumBy(const BoundsOutcome& outcome, BoundCause cause) {
  return outcome.causes[static_cast<size_t>(cause)];
}

// Of the worked examples in docs/routing.md, 1 and 2.
RandomStep SixTokens() {
  return StepOf(2, {{.50f, .30f, .15f, .05f},
                    {.45f, .35f, .12f, .08f},
                    {.60f, .10f, .20f, .10f},
                    {.40f, .25f, .05f, .30f},
                    {.55f, .32f, .08f, .05f},
                    {.35f, .33f, .22f, .10f}});
}

template <typename Counts>
int64_t Sum(const Counts& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

TEST(OutcomeOfTest, AddsUpOverExpertsDevicesAndModes) {
  std::mt19937 random(9);
  for (int round = 0; round < 5000; ++round) {
    const RandomStep step = MakeStep(random, static_cast<TokenMode>(random() % 5));
    const RouteDecision decision = step.Decide();
    const RoutePlan plan = PlanOf(decision, step.scores);
    const RouteReport whole = Summarise(decision);
    ASSERT_EQ(Sum(plan.bounds.expert_rerouted), whole.rerouted) << "round " << round;
    ASSERT_EQ(Sum(plan.bounds.expert_dropped), whole.dropped) << "round " << round;
    ASSERT_EQ(Sum(plan.bounds.rerouted), whole.rerouted);
    ASSERT_EQ(Sum(plan.bounds.dropped), whole.dropped);
    ASSERT_EQ(plan.bounds.rerouted[0] + plan.bounds.dropped[0], 0) << "without a cause";
    std::vector<int64_t> chosen(plan.num_experts);
    for (const PairDecision& pair : decision.pairs) ++chosen[pair.chosen_expert];
    for (int e = 0; e < plan.num_experts; ++e) {
      const int64_t computed = plan.expert_begin[e + 1] - plan.expert_begin[e];
      ASSERT_EQ(computed - plan.bounds.expert_received[e] + plan.bounds.expert_rerouted[e] +
                    plan.bounds.expert_dropped[e],
                chosen[e]);
    }
    RouteReport by_mode;
    for (const RouteReport& report : ReportByMode(plan, step.tokens)) by_mode += report;
    ASSERT_EQ(by_mode.kept, whole.kept);
    ASSERT_EQ(by_mode.bare, whole.bare);
    for (const DomainBounds& domain : decision.bounds) {
      std::vector<int64_t> loads(domain.device_loads.size());
      for (const PairDecision& pair : decision.pairs) {
        const RoutedToken& token = step.tokens[pair.row];
        if (token.mode != TokenMode::kShared || token.domain != domain.domain) continue;
        if (step.policy.capacity.rank_local && token.rank != domain.rank) continue;
        if (pair.device >= 0) ++loads[pair.device];
      }
      ASSERT_EQ(domain.device_loads, loads) << "round " << round;
    }
    if (decision.overrides.empty()) {
      ASSERT_LE(plan.bounds.device_usage, 1) << "round " << round;
    }
  }
}

TEST(OutcomeOfTest, SaysWhatBoundedExpertsAndDevices) {
  using enum BoundCause;
  RouteDecision decision;
  decision.pairs = {{.row = 0,
                     .chosen_expert = 1,
                     .expert = 2,
                     .fate = PairFate::kRerouted,
                     .cause = EvictionCause::kDevice},
                    {.row = 0,
                     .chosen_expert = 1,
                     .expert = 1,
                     .fate = PairFate::kDropped,
                     .cause = EvictionCause::kExpert},
                    {.row = 1, .chosen_expert = 0, .expert = 0, .fate = PairFate::kKept}};
  decision.bounds = {{.expert_places = {4, 4, 1},
                      .expert_causes = {kFactor, kFactor, kMemory},
                      .device_budgets = {10, 4},
                      .device_loads = {5, 3},
                      .expert_pressure = {0, 0, 1},
                      .device_pressure = {2, 0}},
                     {.domain = 1,
                      .expert_places = {kNoBound, 2, 2},
                      .expert_causes = {kNone, kMass, kFactor},
                      .device_budgets = {kNoBound, 0},
                      .device_loads = {100, 2}}};
  decision.block_bounds = {{.expert_places = {1, 1, 1}, .expert_causes = {kFixed, kFixed, kFixed}}};
  const BoundsOutcome outcome = OutcomeOf(decision, 3);
  EXPECT_EQ(outcome.expert_rerouted, (std::vector<int64_t>{0, 1, 0}));
  EXPECT_EQ(outcome.expert_dropped, (std::vector<int64_t>{0, 1, 0}));
  EXPECT_EQ(outcome.expert_capacity, (std::vector<int64_t>{kNoBound, 7, 4}));
  EXPECT_EQ(outcome.causes, (std::array<int64_t, kNumBoundCauses>{1, 3, 3, 0, 1, 0, 0, 1}));
  EXPECT_EQ(outcome.expert_received, (std::vector<int64_t>{0, 0, 1}));
  EXPECT_EQ(outcome.rerouted, (std::array<int64_t, kNumEvictionCauses>{0, 0, 1, 0, 0}));
  EXPECT_EQ(outcome.dropped, (std::array<int64_t, kNumEvictionCauses>{0, 1, 0, 0, 0}));
  EXPECT_EQ(outcome.pressure, 3);
  EXPECT_EQ(outcome.device_budgets, (std::vector<int64_t>{10, 4}));
  EXPECT_EQ(outcome.device_loads, (std::vector<int64_t>{5, 5})) << "100 were under no budget";
  EXPECT_EQ(outcome.device_usage, 2) << "an override on a device without places";
}

TEST(OutcomeOfTest, FollowsTheFirstWorkedExample) {
  RandomStep step = SixTokens();
  step.policy.capacity.factor = 1;
  BoundsOutcome outcome = OutcomeOf(step);
  EXPECT_EQ(outcome.dropped[kExpert], 4);
  EXPECT_THAT(outcome.expert_dropped, ElementsAre(3, 1, 0, 0));
  EXPECT_THAT(outcome.expert_capacity, ElementsAre(3, 3, 3, 3));
  EXPECT_EQ(NumBy(outcome, BoundCause::kFactor), 4);
  EXPECT_THAT(outcome.device_budgets, IsEmpty());

  step.policy.reroute = 2;
  step.policy.reroute_ratio = 0;
  outcome = OutcomeOf(step);
  EXPECT_EQ(outcome.rerouted[kExpert], 4);
  EXPECT_EQ(Sum(outcome.dropped), 0);
  EXPECT_THAT(outcome.expert_rerouted, ElementsAre(3, 1, 0, 0));
  EXPECT_THAT(outcome.expert_received, ElementsAre(0, 0, 2, 2));

  step.policy.capacity.min_mean_load = 4;  // the off switch: three pairs an expert are too few
  outcome = OutcomeOf(step);
  EXPECT_EQ(Sum(outcome.rerouted), 0);
  EXPECT_THAT(outcome.expert_capacity, Each(kNoBound));
  EXPECT_EQ(NumBy(outcome, BoundCause::kNone), 4);
}

TEST(OutcomeOfTest, FollowsTheSecondWorkedExample) {
  RandomStep step = SixTokens();
  step.placement = LinearPlacement(4, 2);
  for (size_t row = 0; row < 6; ++row) step.tokens[row].home_device = row % 2;
  step.policy.capacity.device_factor = 1;
  step.policy.capacity.affinity_mass = 0.6;
  step.policy.reroute = 2;
  step.policy.reroute_ratio = 0.25;
  const BoundsOutcome outcome = OutcomeOf(step);
  EXPECT_EQ(outcome.rerouted[kDevice], 1);
  EXPECT_EQ(outcome.dropped[kDevice], 3);
  EXPECT_EQ(Sum(outcome.dropped), 3);
  EXPECT_THAT(outcome.expert_rerouted, ElementsAre(1, 0, 0, 0));
  EXPECT_THAT(outcome.expert_received, ElementsAre(0, 0, 1, 0));
  EXPECT_THAT(outcome.expert_dropped, ElementsAre(1, 2, 0, 0));
  EXPECT_THAT(outcome.device_budgets, ElementsAre(6, 6));
  EXPECT_THAT(outcome.device_loads, ElementsAre(6, 3));
  EXPECT_EQ(outcome.device_usage, 1);
  EXPECT_EQ(outcome.pressure, 1);
}

TEST(OutcomeOfTest, FollowsTheThirdWorkedExample) {
  RandomStep step =
      StepOf(2, {{.60f, .36f, .04f}, {.50f, .30f, .20f}, {.55f, .25f, .20f}, {.15f, .35f, .50f}});
  step.policy.capacity.capacity = 1;
  const BoundsOutcome outcome = OutcomeOf(step);
  EXPECT_EQ(outcome.dropped[kExpert], 3);
  EXPECT_EQ(outcome.dropped[kCoverage], 1);
  EXPECT_THAT(outcome.expert_dropped, ElementsAre(1, 3, 0));
  EXPECT_THAT(outcome.expert_capacity, ElementsAre(1, 1, 1));
  EXPECT_EQ(NumBy(outcome, BoundCause::kFixed), 3);
  const RouteReport report = Summarise(step.Decide());
  EXPECT_EQ(report.covered, 1);
  EXPECT_EQ(report.overrides, 1);
  EXPECT_EQ(report.bare, 0);
}

TEST(OutcomeOfTest, SaysWhichSettingDecidedThePlaces) {
  RandomStep step = SixTokens();
  CapacityPolicy& policy = step.policy.capacity;
  policy.factor = 1;
  policy.zeta = 1;  // 3 + sqrt(3)
  EXPECT_EQ(NumBy(OutcomeOf(step), BoundCause::kZeta), 4);
  policy.eager = true;
  policy.affinity_mass = 0.6;  // floors 4, 3, 1, 1
  EXPECT_THAT(OutcomeOf(step).expert_capacity, ElementsAre(4, 3, 1, 1));
  EXPECT_EQ(NumBy(OutcomeOf(step), BoundCause::kMass), 4);
  policy.zeta.reset();  // a ceiling of 3
  EXPECT_THAT(OutcomeOf(step).expert_capacity, ElementsAre(3, 3, 1, 1));
  EXPECT_EQ(NumBy(OutcomeOf(step), BoundCause::kFactor), 2);
  EXPECT_EQ(OutcomeOf(step).pressure, 1) << "e0 wanted 4";
  policy.affinity_mass.reset();
  policy.ecr_error = 0.9;  // 16/3 ln(1/0.9) = 0.56
  EXPECT_EQ(NumBy(OutcomeOf(step), BoundCause::kEcr), 4);
  policy.theory = {.effective_dim = 1000, .delta = 0.05};  // e^(1.25 - ln 4): 1, and the later one
  EXPECT_EQ(NumBy(OutcomeOf(step), BoundCause::kTheory), 4);
  step.limits.expert_rows = {0, 9, 9, 9};
  EXPECT_EQ(NumBy(OutcomeOf(step), BoundCause::kMemory), 1);
}

TEST(OutcomeOfTest, CountsIsolatedRowsAsWell) {
  RandomStep step = SixTokens();
  for (RoutedToken& token : step.tokens) token.mode = TokenMode::kThreshold;
  step.thresholds.assign(4, 2.0f);  // above any gate value
  BoundsOutcome outcome = OutcomeOf(step);
  EXPECT_EQ(outcome.dropped[kThreshold], 6);
  EXPECT_EQ(Sum(outcome.dropped), 6);
  EXPECT_THAT(outcome.expert_capacity, IsEmpty()) << "thresholds have no places";

  for (size_t row = 0; row < 6; ++row) {  // two blocks of three rows
    step.tokens[row].mode = TokenMode::kBlock;
    step.tokens[row].position = static_cast<int64_t>(row);
  }
  step.policy.block_tokens = 3;
  step.policy.capacity.factor = 1;  // 3 * 2 / 4, rounded up
  outcome = OutcomeOf(step);
  EXPECT_THAT(outcome.expert_capacity, Each(4));
  EXPECT_EQ(NumBy(outcome, BoundCause::kFactor), 8);
  EXPECT_EQ(outcome.dropped[kExpert], 2) << "all three rows of either block want e0";
}

}  // namespace
}  // namespace gatehouse
