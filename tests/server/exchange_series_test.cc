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
  ExchangeSeries series(registry);
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

TEST(ExchangeSeriesTest, ShowsNothingOfOneRank) {
  prometheus::Registry registry;
  ExchangeSeries series(registry);
  series.OnStep({});
  EXPECT_THAT(TextOf(registry), Not(HasSubstr("gatehouse")));
}

}  // namespace
}  // namespace gatehouse
