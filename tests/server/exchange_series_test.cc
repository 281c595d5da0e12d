#include "server/exchange_series.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

namespace gatehouse {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string TextOf(const prometheus::Registry& registry) {
  return prometheus::TextSerializer().Serialize(registry.Collect());
}

TEST(ExchangeSeriesTest, CountsWhatEachRankSaw) {
  prometheus::Registry registry;
  ExchangeSeries series({AllRanks(2, 1)}, registry);
  const CommStats fast{.wait_seconds = 0.002, .move_seconds = 0.001, .bytes_sent = 10};
  const CommStats slow{.wait_seconds = 0.0001, .move_seconds = 0.001, .bytes_received = 10};
  const std::vector<RankExchanges> ranks = {
      {.calls = {{ExchangePhase::kGather, fast}, {ExchangePhase::kDispatch, fast}},
       .num_computed = 5},
      {.calls = {{ExchangePhase::kGather, slow}, {ExchangePhase::kDispatch, slow}},
       .num_computed = 7}};
  series.OnStep(ranks);
  series.OnStep(ranks);
  const std::string text = TextOf(registry);
  for (
      const char* line : {
          "gatehouse_alltoall_duration_seconds_count{backend=\"in_process\",phase=\"gather\"} 4\n",
          "gatehouse_alltoall_duration_seconds_count{backend=\"in_process\",phase=\"combine\"} 0\n",
          "gatehouse_alltoall_wait_seconds_sum{backend=\"in_process\",phase=\"dispatch\"} 0.0042\n",
          "gatehouse_alltoall_bytes_total{direction=\"sent\",phase=\"dispatch\"} 20\n",
          "gatehouse_alltoall_bytes_total{direction=\"received\",phase=\"gather\"} 20\n",
          "gatehouse_expert_rank_tokens_total{rank=\"1\"} 14\n",
          "gatehouse_rank_wait_seconds_total{rank=\"0\"} 0.008\n",
          "gatehouse_rank_up{rank=\"1\"} 1\n",
      }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(ExchangeSeriesTest, ShowsWhoIsLostAndHowOften) {
  prometheus::Registry registry;
  ExchangeSeries series({AllRanks(3, 1), "gloo"}, registry);
  const Membership two = {.epoch = 2, .num_ranks = 3, .members = {0, 2}};
  series.OnRegroup(two, 0.5);
  EXPECT_THAT(TextOf(registry), HasSubstr("gatehouse_rank_up{rank=\"1\"} 0\n"));
  series.OnRegroup(AllRanks(3, 3), 0.25);
  series.OnRegroup({.epoch = 4, .num_ranks = 3, .members = {0, 2}}, 0.25);
  series.OnRegroup({.epoch = 5, .num_ranks = 3, .members = {0, 1}}, 0.25);
  const std::string text = TextOf(registry);
  for (const char* line :
       {"gatehouse_rank_up{rank=\"0\"} 1\n", "gatehouse_rank_up{rank=\"1\"} 1\n",
        "gatehouse_rank_up{rank=\"2\"} 0\n", "gatehouse_rank_losses_total{rank=\"0\"} 0\n",
        "gatehouse_rank_losses_total{rank=\"1\"} 2\n",
        "gatehouse_rank_losses_total{rank=\"2\"} 1\n", "gatehouse_group_epoch 5\n",
        "gatehouse_alltoall_duration_seconds_count{backend=\"gloo\",phase=\"gather\"} 0\n",
        "gatehouse_regroup_duration_seconds_count 4\n",
        "gatehouse_regroup_duration_seconds_sum 1.25\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(ExchangeSeriesTest, ShowsNothingOfOneRank) {
  prometheus::Registry registry;
  ExchangeSeries series({AllRanks(1)}, registry);
  series.OnStep({});
  EXPECT_THAT(TextOf(registry), Not(HasSubstr("gatehouse")));
}

}  // namespace
}  // namespace gatehouse
