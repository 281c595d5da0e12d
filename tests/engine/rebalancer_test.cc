#include "engine/rebalancer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kExperts = 4;

// Tokens that the experts of two layers computed in one step.
std::vector<LayerLoad> Loads(const std::vector<int64_t>& first,
                             const std::vector<int64_t>& second) {
  return {{.layer = 0, .expert_tokens = first}, {.layer = 2, .expert_tokens = second}};
}

class RebalancerTest : public ::testing::Test {
 protected:
  // Steps border until nothing is left to do; the layers that changed, in order.
  std::vector<int> Settle() {
    std::vector<int> changed;
    for (int border = 0; rebalancer_.has_work(); ++border) {
      EXPECT_LT(border, 100);
      if (const auto layer = rebalancer_.Advance()) changed.push_back(*layer);
    }
    return changed;
  }
  const RebalanceStatus& status() const { return rebalancer_.status(); }

  Rebalancer rebalancer_{{LinearPlacement(kExperts, 2), LinearPlacement(kExperts, 2)}};
};

TEST_F(RebalancerTest, MovesTheLayerThatIsUneven) {
  rebalancer_.OnStep(Loads({30000, 30000, 1000, 1000}, {9000, 9000, 9000, 9000}));
  ASSERT_TRUE(rebalancer_.Request({}).ok());
  EXPECT_EQ(status().state, RebalanceState::kPlanned);
  EXPECT_FALSE(rebalancer_.Request({}).ok()) << "one at a time";
  EXPECT_THAT(Settle(), ElementsAre(0));
  EXPECT_EQ(status().state, RebalanceState::kActive);
  EXPECT_EQ(status().id, 1);
  EXPECT_EQ(status().num_layers, 1);
  EXPECT_EQ(status().num_moved, 1);
  EXPECT_EQ(status().num_copies, 2);  // two experts change places
  EXPECT_NEAR(status().imbalance, (60000 / 31000.0 + 1) / 2, 1e-9);
  EXPECT_NEAR(status().planned_imbalance, 1, 1e-9);
  EXPECT_EQ(status().obtained_imbalance, 0) << "nothing ran yet";
  const ExpertPlacement& placement = rebalancer_.placements()[0];
  EXPECT_NE(placement.devices_of(0)[0], placement.devices_of(1)[0]);
  EXPECT_EQ(rebalancer_.placements()[1].copy_devices, LinearPlacement(kExperts, 2).copy_devices);
  rebalancer_.OnStep(Loads({30000, 20000, 1000, 1000}, {1, 1, 1, 1}));
  EXPECT_NEAR(status().obtained_imbalance, 31000 / 26000.0, 1e-9);
  EXPECT_EQ(status().state, RebalanceState::kActive);
}

TEST_F(RebalancerTest, TakesBackWhatMadeItWorse) {
  rebalancer_.OnStep(Loads({30000, 30000, 1000, 1000}, {30000, 30000, 1000, 1000}));
  ASSERT_TRUE(rebalancer_.Request({}).ok());
  EXPECT_THAT(Settle(), ElementsAre(0, 1));
  // Now those are wanted that lie together since.
  std::vector<int64_t> wanted(kExperts);
  for (int e = 0; e < kExperts; ++e) {
    wanted[e] = rebalancer_.placements()[0].devices_of(e)[0] == 0 ? 20000 : 100;
  }
  rebalancer_.OnStep(Loads(wanted, wanted));
  EXPECT_EQ(status().state, RebalanceState::kMoving);
  EXPECT_THAT(Settle(), ElementsAre(1, 0));
  EXPECT_EQ(status().state, RebalanceState::kRolledBack);
  EXPECT_EQ(status().num_moved, 0);
  EXPECT_THAT(status().reason, HasSubstr("without it"));
  for (const ExpertPlacement& placement : rebalancer_.placements()) {
    EXPECT_EQ(placement.copy_devices, LinearPlacement(kExperts, 2).copy_devices);
  }
  EXPECT_TRUE(rebalancer_.Request({}).ok()) << "another may follow";
  EXPECT_EQ(status().id, 2);
}

TEST_F(RebalancerTest, DoesNotMoveOnChanceNorForNothing) {
  ASSERT_TRUE(rebalancer_.Request({.force = true}).ok());
  EXPECT_TRUE(Settle().empty());
  EXPECT_EQ(status().state, RebalanceState::kIdle);
  EXPECT_EQ(status().reason, "too few tokens were computed to plan by");
  rebalancer_.OnStep(Loads({9000, 9100, 9000, 9000}, {9000, 9000, 9000, 9000}));
  ASSERT_TRUE(rebalancer_.Request({}).ok());
  EXPECT_TRUE(Settle().empty());
  EXPECT_EQ(status().reason, "it would gain too little");
}

TEST_F(RebalancerTest, ReplicasShareWhatOneExpertGets) {
  rebalancer_.OnStep(Loads({60000, 1000, 1000, 1000}, {9000, 9000, 9000, 9000}));
  ASSERT_TRUE(rebalancer_.Request({.num_replicas = 1}).ok());
  Settle();
  EXPECT_EQ(rebalancer_.placements()[0].devices_of(0).size(), 2u);
  EXPECT_LT(status().planned_imbalance, 1.1);
}

TEST_F(RebalancerTest, RefusesWhatCannotBe) {
  EXPECT_EQ(rebalancer_.Request({.num_replicas = 5}).message(),
            "replicas: got 5, expected 0 to 4, all experts on all ranks");
  EXPECT_EQ(Rebalancer({LinearPlacement(kExperts, 1)}).Request({}).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Rebalancer({}).Request({}).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(RebalancerTest, ExpertsOfALostRankGoToOthersUntilItIsBack) {
  EXPECT_THAT(rebalancer_.SetMembers(AllRanks(2)), ElementsAre()) << "nothing is lost";
  rebalancer_.OnStep(Loads({30000, 30000, 1000, 1000}, {30000, 30000, 1000, 1000}));
  ASSERT_TRUE(rebalancer_.Request({}).ok());
  rebalancer_.Advance();
  EXPECT_THAT(rebalancer_.SetMembers({.epoch = 1, .num_ranks = 2, .members = {0}}),
              ElementsAre(0, 1));
  EXPECT_EQ(status().state, RebalanceState::kIdle);
  EXPECT_THAT(status().reason, HasSubstr("rank 1 was lost"));
  EXPECT_FALSE(rebalancer_.has_work());
  for (const ExpertPlacement& placement : rebalancer_.placements()) {
    EXPECT_THAT(placement.copy_devices, ElementsAre(0, 0, 0, 0));
  }
  EXPECT_THAT(rebalancer_.Request({}).message(), HasSubstr("rank 1 is lost"));
  EXPECT_THAT(rebalancer_.SetMembers(AllRanks(2, 2)), ElementsAre(0, 1));
  EXPECT_EQ(rebalancer_.placements()[0].copy_devices, LinearPlacement(kExperts, 2).copy_devices);
  ASSERT_TRUE(rebalancer_.Request({}).ok());
  EXPECT_THAT(Settle(), ElementsAre(0, 1));
}

}  // namespace
}  // namespace gatehouse
