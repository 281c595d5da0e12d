#include "server/rebalance_series.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

namespace gatehouse {
namespace {

using ::testing::HasSubstr;

std::string TextOf(const prometheus::Registry& registry) {
  return prometheus::TextSerializer().Serialize(registry.Collect());
}

TEST(RebalanceSeriesTest, CountsEachRebalanceOnceHoweverOftenItIsSeen) {
  prometheus::Registry registry;
  RebalanceSeries series(2, registry);
  EXPECT_THAT(TextOf(registry), HasSubstr("gatehouse_eplb_state{state=\"idle\"} 1\n"));
  series.Set({}, 10);  // nobody has asked for one
  series.Set({.state = RebalanceState::kPlanned, .id = 1}, 11);
  RebalanceStatus first = {.state = RebalanceState::kActive,
                           .id = 1,
                           .num_layers = 2,
                           .num_moved = 2,
                           .num_copies = 5,
                           .imbalance = 1.5,
                           .planned_imbalance = 1.125};
  series.Set(first, 12);
  first.obtained_imbalance = 1.25;
  series.Set(first, 13);
  const std::string text = TextOf(registry);
  for (const char* line :
       {"gatehouse_eplb_state{state=\"idle\"} 0\n", "gatehouse_eplb_state{state=\"active\"} 1\n",
        "gatehouse_eplb_rebalances_total{result=\"moved\"} 1\n",
        "gatehouse_eplb_rebalances_total{result=\"unchanged\"} 0\n",
        "gatehouse_eplb_copies_moved_total 5\n",
        "gatehouse_eplb_imbalance_ratio{when=\"before\"} 1.5\n",
        "gatehouse_eplb_imbalance_ratio{when=\"planned\"} 1.125\n",
        "gatehouse_eplb_imbalance_ratio{when=\"obtained\"} 1.25\n",
        "gatehouse_eplb_last_change_timestamp_seconds 12\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(RebalanceSeriesTest, TellsWhatWasTakenBackFromWhatNeverMoved) {
  prometheus::Registry registry;
  RebalanceSeries series(2, registry);
  const RebalanceStatus moved = {
      .state = RebalanceState::kActive, .id = 1, .num_layers = 1, .num_moved = 1};
  series.Set(moved, 10);
  series.Set({.state = RebalanceState::kMoving, .id = 1, .num_layers = 1, .num_moved = 1}, 11);
  series.Set({.state = RebalanceState::kRolledBack, .id = 1, .num_layers = 1}, 12);
  // Both began and ended before anybody looked.
  series.Set({.state = RebalanceState::kIdle, .id = 2}, 13);
  series.Set({.state = RebalanceState::kIdle, .id = 3, .num_layers = 2, .num_moved = 1}, 14);
  series.Set({.state = RebalanceState::kIdle, .id = 4}, 15);
  const std::string text = TextOf(registry);
  for (const char* line : {"gatehouse_eplb_rebalances_total{result=\"moved\"} 1\n",
                           "gatehouse_eplb_rebalances_total{result=\"rolled_back\"} 1\n",
                           "gatehouse_eplb_rebalances_total{result=\"unchanged\"} 2\n",
                           "gatehouse_eplb_rebalances_total{result=\"interrupted\"} 1\n",
                           "gatehouse_eplb_last_change_timestamp_seconds 14\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(RebalanceSeriesTest, ShowsNothingOfOneRank) {
  prometheus::Registry registry;
  RebalanceSeries series(1, registry);
  series.Set({}, 10);
  EXPECT_EQ(TextOf(registry), "");
}

}  // namespace
}  // namespace gatehouse
