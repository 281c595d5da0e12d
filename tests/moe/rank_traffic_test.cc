#include "engine/moe/rank_traffic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "engine/moe/router.h"

namespace gatehouse {
namespace {

using ::testing::ElementsAre;

RoutePlan PlanOfChoices(int num_experts, int top_k, std::vector<int32_t> expert_ids) {
  const auto num_rows = static_cast<int>(expert_ids.size()) / top_k;
  std::vector<float> weights(expert_ids.size());
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = 1 + static_cast<float>(i);
  return RouteExact({.num_rows = num_rows,
                     .num_experts = num_experts,
                     .top_k = top_k,
                     .expert_ids = std::move(expert_ids),
                     .weights = std::move(weights),
                     .mass = std::vector<float>(num_rows, 1),
                     .row_failed = std::vector<uint8_t>(num_rows)});
}

TEST(StepRowsTest, FollowsTheWorkedExampleOfItsHeader) {
  const StepRows rows = RowsByRank({0, 1, 0, 1, 1}, 3);
  EXPECT_THAT(rows.rank_rows, ElementsAre(0, 2, 1, 3, 4));
  EXPECT_THAT(rows.rank_begin, ElementsAre(0, 2, 5, 5));
  EXPECT_THAT(rows.rows_of(1), ElementsAre(1, 3, 4));
  EXPECT_TRUE(rows.rows_of(2).empty());
}

TEST(RankTrafficTest, FollowsTheWorkedExampleOfItsHeader) {
  const RoutePlan plan = PlanOfChoices(4, 2, {0, 2, 1, 2, 3, 0});
  const StepRows rows = RowsByRank({0, 1, 0}, 2);
  const RankTraffic traffic = TrafficOf(plan, rows, LinearPlacement(4, 2), 0);
  EXPECT_THAT(traffic.sent_rows, ElementsAre(0, 1, 0, 1));  // own rows: the step's 0 and 2
  EXPECT_THAT(traffic.sent_begin, ElementsAre(0, 2, 4));
  EXPECT_THAT(traffic.received_begin, ElementsAre(0, 2, 3));
  EXPECT_THAT(traffic.row_ids, ElementsAre(0, 1, 2));
  EXPECT_THAT(traffic.expert_begin, ElementsAre(0, 2, 3, 3, 3));
  EXPECT_THAT(traffic.result_ids, ElementsAre(0, 1, 2));
  EXPECT_THAT(traffic.result_begin, ElementsAre(0, 2, 3));
  EXPECT_THAT(traffic.returned_begin, ElementsAre(0, 2, 4));
  EXPECT_THAT(traffic.token_begin, ElementsAre(0, 2, 4));
  EXPECT_THAT(traffic.assignment_ids, ElementsAre(0, 2, 1, 3));
  EXPECT_THAT(traffic.weights, ElementsAre(1, 2, 6, 5));  // by ascending expert
}

// Sends by the traffic of all ranks as a communicator would, and sums who computed what.
class Exchange {
 public:
  using Pair = std::pair<int32_t, int32_t>;  // (expert, row of the step)

  Exchange(const RoutePlan& plan, const StepRows& rows, const ExpertPlacement& experts)
      : rows_(rows), num_ranks_(rows.num_ranks()) {
    for (int r = 0; r < num_ranks_; ++r) traffic_.push_back(TrafficOf(plan, rows, experts, r));
  }

  // Rows of the step that `rank` gets, in order.
  std::vector<int32_t> Received(int rank) const {
    std::vector<int32_t> received;
    for (int from = 0; from < num_ranks_; ++from) {
      const RankTraffic& sender = traffic_[from];
      for (int32_t i = sender.sent_begin[rank]; i < sender.sent_begin[rank + 1]; ++i) {
        received.push_back(rows_.rows_of(from)[sender.sent_rows[i]]);
      }
      EXPECT_EQ(static_cast<int32_t>(received.size()), traffic_[rank].received_begin[from + 1]);
    }
    return received;
  }
  std::vector<Pair> Computed(int rank) const {
    const std::vector<int32_t> received = Received(rank);
    const RankTraffic& traffic = traffic_[rank];
    std::vector<Pair> pairs;
    for (size_t e = 0; e + 1 < traffic.expert_begin.size(); ++e) {
      for (int32_t i = traffic.expert_begin[e]; i < traffic.expert_begin[e + 1]; ++i) {
        pairs.emplace_back(static_cast<int32_t>(e), received.at(traffic.row_ids[i]));
      }
    }
    return pairs;
  }
  std::vector<Pair> Returned(int rank) const {
    std::vector<Pair> pairs;
    for (int from = 0; from < num_ranks_; ++from) {
      const RankTraffic& sender = traffic_[from];
      const std::vector<Pair> computed = Computed(from);
      for (int32_t i = sender.result_begin[rank]; i < sender.result_begin[rank + 1]; ++i) {
        pairs.push_back(computed.at(sender.result_ids[i]));
      }
      EXPECT_EQ(static_cast<int32_t>(pairs.size()), traffic_[rank].returned_begin[from + 1]);
    }
    return pairs;
  }
  const RankTraffic& of(int rank) const { return traffic_[rank]; }

 private:
  const StepRows& rows_;
  const int num_ranks_;
  std::vector<RankTraffic> traffic_;
};

ExpertPlacement RandomPlacement(std::mt19937& random, int num_experts, int num_ranks) {
  ExpertPlacement placement{
      .num_devices = num_ranks, .copy_begin = {0}, .throughput = std::vector<double>(num_ranks, 1)};
  for (int e = 0; e < num_experts; ++e) {
    const auto sure = static_cast<int32_t>(random() % num_ranks);
    for (int32_t r = 0; r < num_ranks; ++r) {
      if (r == sure || random() % 4 == 0) placement.copy_devices.push_back(r);
    }
    placement.copy_begin.push_back(placement.num_copies());
  }
  return placement;
}

TEST(RankTrafficTest, EveryPairIsComputedOnceWhereItsExpertIsAndSummedAtHome) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    const int num_ranks = 1 + static_cast<int>(random() % 5), num_experts = 3 + random() % 6;
    const int top_k = 1 + static_cast<int>(random() % 3),
              num_rows = static_cast<int>(random() % 20);
    std::vector<int32_t> choices, row_ranks;
    for (int row = 0; row < num_rows; ++row) {
      std::vector<int32_t> experts(num_experts);
      for (int e = 0; e < num_experts; ++e) experts[e] = e;
      std::shuffle(experts.begin(), experts.end(), random);
      choices.insert(choices.end(), experts.begin(), experts.begin() + top_k);
      row_ranks.push_back(static_cast<int32_t>(random() % num_ranks));
    }
    const RoutePlan plan = PlanOfChoices(num_experts, top_k, choices);
    const StepRows rows = RowsByRank(row_ranks, num_ranks);
    const ExpertPlacement placement = RandomPlacement(random, num_experts, num_ranks);
    const Exchange exchange(plan, rows, placement);
    std::map<Exchange::Pair, int> num_computed;
    for (int r = 0; r < num_ranks; ++r) {
      const std::vector<int32_t> received = exchange.Received(r);
      EXPECT_EQ(std::set<int32_t>(received.begin(), received.end()).size(), received.size())
          << "a row goes to a rank once";
      for (const auto& [expert, row] : exchange.Computed(r)) {
        ++num_computed[{expert, row}];
        const auto copies = placement.devices_of(expert);
        EXPECT_TRUE(std::count(copies.begin(), copies.end(), r));
        if (std::count(copies.begin(), copies.end(), rows.row_ranks[row])) {
          EXPECT_EQ(rows.row_ranks[row], r) << "a copy at home is taken";
        }
      }
      const std::vector<Exchange::Pair> returned = exchange.Returned(r);
      const RankTraffic& traffic = exchange.of(r);
      for (size_t i = 0; i < rows.rows_of(r).size(); ++i) {
        const int32_t row = rows.rows_of(r)[i];
        std::vector<int32_t> summed;
        for (int32_t at = traffic.token_begin[i]; at < traffic.token_begin[i + 1]; ++at) {
          const auto [expert, of_row] = returned.at(traffic.assignment_ids[at]);
          EXPECT_EQ(of_row, row);
          summed.push_back(expert);
          const int64_t slot = std::find(choices.begin() + int64_t{row} * top_k,
                                         choices.begin() + int64_t{row + 1} * top_k, expert) -
                               choices.begin();
          EXPECT_EQ(traffic.weights[at], 1 + static_cast<float>(slot));
        }
        EXPECT_EQ(static_cast<int>(summed.size()), top_k);
        EXPECT_TRUE(std::is_sorted(summed.begin(), summed.end()));
      }
    }
    EXPECT_EQ(static_cast<int>(num_computed.size()), plan.num_pairs());
    for (const auto& [pair, count] : num_computed) EXPECT_EQ(count, 1);
  }
}

}  // namespace
}  // namespace gatehouse
