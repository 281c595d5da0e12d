#include "engine/moe/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "tests/moe/random_step.h"

namespace gatehouse {
namespace {

using ::testing::ElementsAre;

GateChoice Choice(int num_experts, int top_k, std::vector<int32_t> expert_ids,
                  std::vector<float> weights, std::vector<uint8_t> row_failed) {
  return {.num_rows = static_cast<int>(row_failed.size()),
          .num_experts = num_experts,
          .top_k = top_k,
          .expert_ids = std::move(expert_ids),
          .weights = std::move(weights),
          .mass = std::vector<float>(row_failed.size(), 0.5f),
          .row_failed = row_failed};
}

TEST(RouteExactTest, FollowsTheWorkedExampleOfItsHeader) {
  const std::vector<uint8_t> none(2, 0);
  const RoutePlan plan = RouteExact(Choice(3, 2, {2, 0, 0, 1}, {.7f, .3f, .6f, .4f}, none));
  EXPECT_THAT(plan.expert_begin, ElementsAre(0, 2, 3, 4));
  EXPECT_THAT(plan.row_ids, ElementsAre(0, 1, 1, 0));
  EXPECT_THAT(plan.token_begin, ElementsAre(0, 2, 4));
  EXPECT_THAT(plan.assignment_ids, ElementsAre(0, 3, 1, 2));
  EXPECT_THAT(plan.weights, ElementsAre(.3f, .7f, .6f, .4f));
  EXPECT_THAT(plan.slot_experts, ElementsAre(2, 0, 0, 1));
  EXPECT_TRUE(plan.Validate().ok()) << plan.Validate();
}

TEST(RouteExactTest, LeavesFailedRowsOut) {
  const std::vector<uint8_t> failed = {0, 1, 0};
  const RoutePlan plan = RouteExact(Choice(2, 1, {1, 0, 1}, {1, 0, 1}, failed));
  EXPECT_THAT(plan.row_ids, ElementsAre(0, 2));
  EXPECT_THAT(plan.token_begin, ElementsAre(0, 1, 1, 2));
  EXPECT_TRUE(plan.Validate().ok()) << plan.Validate();
}

TEST(RouteExactTest, HandlesAStepWithoutRows) {
  const RoutePlan plan = RouteExact(Choice(4, 2, {}, {}, {}));
  EXPECT_EQ(plan.num_pairs(), 0);
  EXPECT_TRUE(plan.Validate().ok()) << plan.Validate();
}

TEST(RouteExactTest, KeepsEveryPairOnceWithItsWeight) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    const int n = 1 + random() % 17, k = 1 + random() % n, rows = random() % 40;
    std::vector<int32_t> ids;
    std::vector<float> weights;
    std::vector<uint8_t> failed(rows);
    std::map<std::pair<int, int>, float> expected;  // (row, expert) -> weight
    for (int row = 0; row < rows; ++row) {
      std::vector<int32_t> experts(n);
      for (int e = 0; e < n; ++e) experts[e] = e;
      std::shuffle(experts.begin(), experts.end(), random);
      failed[row] = random() % 8 == 0;
      for (int slot = 0; slot < k; ++slot) {
        ids.push_back(experts[slot]);
        weights.push_back(static_cast<float>(random() % 1000) / 1000);
        if (!failed[row]) expected[{row, experts[slot]}] = weights.back();
      }
    }
    const RoutePlan plan = RouteExact(Choice(n, k, ids, weights, failed));
    ASSERT_TRUE(plan.Validate().ok()) << "round " << round << ": " << plan.Validate();
    std::map<std::pair<int, int>, float> got;
    for (int row = 0; row < rows; ++row) {
      for (int at = plan.token_begin[row]; at < plan.token_begin[row + 1]; ++at) {
        int expert = 0;
        while (plan.expert_begin[expert + 1] <= plan.assignment_ids[at]) ++expert;
        got[{row, expert}] = plan.weights[at];
      }
    }
    EXPECT_EQ(got, expected) << "round " << round;
  }
}

TEST(PlanOfTest, IsWholeAndReportsWhatWasDecided) {
  std::mt19937 random(8);
  for (int round = 0; round < 20000; ++round) {
    RandomStep step = MakeStep(random, static_cast<TokenMode>(random() % 5));
    if (step.scores.num_rows > 0 && random() % 4 == 0) step.scores.row_failed[0] = 1;
    const RouteDecision decision = step.Decide();
    const RoutePlan plan = PlanOf(decision, step.scores);
    ASSERT_TRUE(plan.Validate().ok()) << "round " << round << ": " << plan.Validate();
    const RouteReport whole = Summarise(decision);
    RouteReport sum;
    for (int row = 0; row < plan.num_rows; ++row) {
      const RouteReport of_row = ReportOf(plan, row, row + 1);
      sum.assignments += of_row.assignments;
      sum.kept += of_row.kept;
      sum.rerouted += of_row.rerouted;
      sum.dropped += of_row.dropped;
      sum.covered += of_row.covered;
      sum.overrides += of_row.overrides;
      sum.bare += of_row.bare;
      sum.gate_mass += of_row.gate_mass;
      sum.gate_mass_kept += of_row.gate_mass_kept;
    }
    ASSERT_EQ(sum.assignments, whole.assignments) << "round " << round;
    ASSERT_EQ(sum.kept, whole.kept);
    ASSERT_EQ(sum.rerouted, whole.rerouted);
    ASSERT_EQ(sum.dropped, whole.dropped);
    ASSERT_EQ(sum.overrides, whole.overrides);
    ASSERT_EQ(sum.covered, whole.covered);
    ASSERT_EQ(sum.bare, whole.bare);
    ASSERT_NEAR(sum.gate_mass, whole.gate_mass, 1e-5 * whole.gate_mass);
    ASSERT_NEAR(sum.gate_mass_kept, whole.gate_mass_kept, 1e-5 * whole.gate_mass);
    const auto marked = [&](RowMark mark) {
      return std::count(plan.row_marks.begin(), plan.row_marks.end(), mark);
    };
    ASSERT_EQ(marked(RowMark::kOverride), static_cast<int64_t>(decision.overrides.size()));
    ASSERT_EQ(marked(RowMark::kCovered), static_cast<int64_t>(decision.covered.size()));
    ASSERT_EQ(marked(RowMark::kBare), static_cast<int64_t>(decision.bare_rows.size()));
  }
}

TEST(ReportByModeTest, CountsAnExactLayerAsExact) {
  const std::vector<uint8_t> none(2, 0);
  const RoutePlan plan = RouteExact(Choice(2, 1, {1, 0}, {1, 1}, none));
  const std::vector<RoutedToken> tokens(2, {.mode = TokenMode::kShared});
  EXPECT_EQ(ReportByMode(plan, tokens)[static_cast<int>(TokenMode::kExact)].kept, 2);
}

TEST(ReportOfTest, CountsExactRowsWholeAndFailedOnesNot) {
  const std::vector<uint8_t> failed = {0, 1, 0};
  const RoutePlan plan = RouteExact(Choice(2, 1, {1, 0, 1}, {1, 0, 1}, failed));
  const RouteReport report = ReportOf(plan, 0, 3);
  EXPECT_EQ(report.assignments, 2);
  EXPECT_EQ(report.kept, 2);
  EXPECT_EQ(report.gate_mass, 1);
  EXPECT_EQ(report.gate_mass_kept, 1);
  EXPECT_TRUE(report.exact());
}

TEST(RoutePlanTest, ValidateNamesTheFirstFault) {
  const std::vector<uint8_t> none(2, 0);
  const RoutePlan good = RouteExact(Choice(3, 2, {2, 0, 0, 1}, {.7f, .3f, .6f, .4f}, none));
  const auto message = [](const RoutePlan& plan) { return std::string(plan.Validate().message()); };

  RoutePlan broken = good;
  broken.row_ids[2] = 5;
  EXPECT_EQ(message(broken), "route plan: expert 1 has row 5 of 2");
  broken = good;
  broken.expert_begin[1] = 3;
  broken.expert_begin[2] = 2;
  EXPECT_EQ(message(broken), "route plan: expert_begin falls after entry 1");
  broken = good;
  std::swap(broken.assignment_ids[0], broken.assignment_ids[1]);
  EXPECT_EQ(message(broken), "route plan: row 0 sums pair 0 after pair 3");
  broken = good;
  broken.assignment_ids[0] = 1;
  EXPECT_EQ(message(broken), "route plan: row 0 sums pair 1, which is not its own");
  broken = good;
  broken.token_begin.pop_back();
  EXPECT_EQ(message(broken), "route plan: token_begin has 2 entries, expected 3");
  broken = good;
  broken.slot_experts[1] = 1;
  EXPECT_EQ(message(broken), "route plan: row 0 has expert 1 in a slot and no pair there");
  broken = good;
  broken.slot_experts[1] = -1;
  EXPECT_EQ(message(broken), "route plan: row 0 sums 2 pairs of 1 slots");
  broken = good;
  broken.row_mass.clear();
  EXPECT_EQ(message(broken), "route plan: 0 masses for 2 rows");
  broken = good;
  broken.slot_fates.assign(4, SlotFate::kKept);
  EXPECT_EQ(message(broken), "route plan: 4 fates, 0 masses and 0 marks for 2 rows");
  broken.row_mass_kept.assign(2, 0.5f);
  broken.row_marks.assign(2, RowMark::kNone);
  EXPECT_TRUE(broken.Validate().ok()) << broken.Validate();
  broken.slot_fates[2] = SlotFate::kDropped;
  EXPECT_EQ(message(broken), "route plan: slot 2 is not computed and has expert 0");
}

}  // namespace
}  // namespace gatehouse
