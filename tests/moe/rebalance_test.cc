#include "engine/moe/rebalance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/moe/balanced_placement.h"

namespace gatehouse {
namespace {

using ::testing::HasSubstr;

// Eight experts on four devices, of which the first has half of all there is.
PlacementProblem Skewed() {
  PlacementProblem problem;
  problem.loads = {4, 4, 2, 2, 1, 1, 1, 1};
  problem.throughput.assign(4, 1);
  problem.slots.assign(4, 3);
  problem.num_replicas = 2;
  return problem;
}

constexpr double kManyPairs = 1e6;

TEST(PlanRebalanceTest, AGainIsWorthItsCopies) {
  const PlacementProblem problem = Skewed();
  const auto plan = PlanRebalance(problem, LinearPlacement(8, 4), kManyPairs, {});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->verdict, RebalanceVerdict::kWorthIt);
  EXPECT_DOUBLE_EQ(plan->imbalance, 2);
  EXPECT_DOUBLE_EQ(plan->planned_imbalance, 1);
  EXPECT_DOUBLE_EQ(plan->gain(), 0.5);
  EXPECT_DOUBLE_EQ(PredictedImbalance(plan->placement, problem.loads), 1);
  EXPECT_EQ(plan->change.copies, MovesBetween(LinearPlacement(8, 4), plan->placement).copies);
}

TEST(PlanRebalanceTest, BalancedStaysAsItIs) {
  PlacementProblem problem = Skewed();
  problem.loads.assign(8, 3);
  const auto plan = PlanRebalance(problem, LinearPlacement(8, 4), kManyPairs, {});
  EXPECT_EQ(plan->verdict, RebalanceVerdict::kTooLittleGain);
  EXPECT_TRUE(plan->change.empty());
  EXPECT_DOUBLE_EQ(plan->gain(), 0);
}

TEST(PlanRebalanceTest, EachThresholdRefuses) {
  const PlacementProblem problem = Skewed();
  const ExpertPlacement linear = LinearPlacement(8, 4);
  const auto verdict = [&](double num_pairs, const RebalancePolicy& policy) {
    return PlanRebalance(problem, linear, num_pairs, policy)->verdict;
  };
  EXPECT_EQ(verdict(4 * 4000, {}), RebalanceVerdict::kWorthIt);
  EXPECT_EQ(verdict(4 * 4000 - 1, {}), RebalanceVerdict::kTooFewPairs);
  RebalancePolicy policy;
  policy.min_gain = 0.51;
  EXPECT_EQ(verdict(kManyPairs, policy), RebalanceVerdict::kTooLittleGain);
  // All copies together at 160 pairs cost more than a load of 1 saves of 400 pairs on a device.
  policy = {};
  policy.horizon_pairs = 400;
  EXPECT_EQ(verdict(kManyPairs, policy), RebalanceVerdict::kCostsTooMuch);
}

// Devices with 12 8 7 8: a few exchanges do, where a placement from nothing moves most experts.
TEST(PlanRebalanceTest, MovesNoMoreThanItMust) {
  PlacementProblem problem;
  problem.loads = {8, 3, 5, 3, 2, 6, 4, 4};
  problem.throughput.assign(4, 1);
  problem.slots.assign(4, 2);
  const ExpertPlacement current =
      PlacementOf({{0}, {1}, {1}, {2}, {3}, {3}, {0}, {2}}, {1, 1, 1, 1});
  const auto plan = PlanRebalance(problem, current, kManyPairs, {});
  EXPECT_EQ(plan->verdict, RebalanceVerdict::kWorthIt);
  const ExpertPlacement anew = *BalancedPlacement(problem);
  EXPECT_LT(plan->change.copies.size(), MovesBetween(current, anew).copies.size());
  EXPECT_LE(plan->planned_imbalance, PredictedImbalance(anew, problem.loads));
}

// A placement from nothing gains most by copies; where those cost too much, refining still gains.
TEST(PlanRebalanceTest, TakesTheCheaperPlanWhereTheBestCostsTooMuch) {
  PlacementProblem problem = Skewed();
  problem.slots.assign(4, 4);
  problem.num_replicas = 8;
  const ExpertPlacement linear = LinearPlacement(8, 4);
  const auto copies = [&](double cost) {
    RebalancePolicy policy;
    policy.copy_cost_pairs = cost;
    const auto plan = PlanRebalance(problem, linear, kManyPairs, policy);
    EXPECT_EQ(plan->verdict, RebalanceVerdict::kWorthIt);
    return plan->change.copies.size();
  };
  const size_t many = copies(1), few = copies(25000);
  EXPECT_GE(many, 8);
  EXPECT_LT(few, 8);
}

// More copies than are allowed now: refining could not take them away, a placement anew does.
TEST(PlanRebalanceTest, KeepsTheTermsWhereTheCurrentOneDoesNot) {
  PlacementProblem problem = Skewed();
  problem.num_replicas = 0;
  const ExpertPlacement current =
      PlacementOf({{0, 1, 2, 3}, {1}, {1}, {0}, {2}, {2}, {3}, {3}}, {1, 1, 1, 1});
  EXPECT_EQ(PlanRebalance(problem, current, kManyPairs, {})->placement.num_copies(), 8);
  problem = Skewed();
  problem.slots.assign(4, 2);
  problem.num_replicas = 0;
  const ExpertPlacement crowded =
      PlacementOf({{0}, {0}, {0}, {0}, {0}, {1}, {2}, {3}}, {1, 1, 1, 1});
  const ExpertPlacement spread = PlanRebalance(problem, crowded, kManyPairs, {})->placement;
  for (int32_t d = 0; d < 4; ++d) {
    EXPECT_EQ(std::count(spread.copy_devices.begin(), spread.copy_devices.end(), d), 2);
  }
}

TEST(PlanRebalanceTest, CountsByTheThroughputOfNow) {
  PlacementProblem problem = Skewed();
  problem.loads.assign(8, 1);
  problem.throughput = {0.5, 1, 1, 1};  // device 0 has become slow
  problem.slots.assign(4, 4);
  const auto plan = PlanRebalance(problem, LinearPlacement(8, 4), kManyPairs, {});
  EXPECT_DOUBLE_EQ(plan->imbalance, 4 / (8 / 3.5));
  EXPECT_EQ(plan->verdict, RebalanceVerdict::kWorthIt);
  EXPECT_LT(plan->planned_imbalance, 1.4);
}

TEST(PlanRebalanceTest, RefusesWhatCannotBe) {
  PlacementProblem problem = Skewed();
  EXPECT_THAT(PlanRebalance(problem, LinearPlacement(8, 3), kManyPairs, {}).status().message(),
              HasSubstr("got 8 experts on 3 devices, expected 8 on 4"));
  EXPECT_THAT(PlanRebalance(problem, LinearPlacement(6, 4), kManyPairs, {}).status().message(),
              HasSubstr("got 6 experts on 4 devices, expected 8 on 4"));
  problem.slots.assign(4, 1);
  EXPECT_THAT(PlanRebalance(problem, LinearPlacement(8, 4), kManyPairs, {}).status().message(),
              HasSubstr("got 4 on 4 devices, expected at least 8"));
}

}  // namespace
}  // namespace gatehouse
