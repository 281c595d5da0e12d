#include "server/roofline_series.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

namespace gatehouse {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

StepStats Step(double seconds) {
  StepStats stats;
  stats.duration_seconds = seconds;
  stats.cost = {.dense_bytes = 300,
                .expert_bytes = 500,
                .kv_bytes = 200,
                .operations = {.in_float = 20, .in_integer = 60}};
  return stats;
}

TEST(RooflineSeriesTest, ShowsTheShareOfTheLimitThatStepsReach) {
  prometheus::Registry registry;
  RooflineSeries series({.read_bytes_per_second = 1000,
                         .float_operations_per_second = 100,
                         .integer_operations_per_second = 200},
                        {"prefill", "decode"}, registry);
  series.OnStep(1, Step(2.5));  // 1 s of reading, 0.5 s of computing
  series.OnStep(1, Step(2));
  const std::string text = prometheus::TextSerializer().Serialize(registry.Collect());
  for (const char* line : {
           "gatehouse_step_read_bytes_total{kind=\"dense_weights\"} 600\n",
           "gatehouse_step_read_bytes_total{kind=\"expert_weights\"} 1000\n",
           "gatehouse_step_read_bytes_total{kind=\"kv_cache\"} 400\n",
           "gatehouse_step_operations_total{kind=\"float\"} 40\n",
           "gatehouse_step_operations_total{kind=\"integer\"} 120\n",
           "gatehouse_step_bound_seconds_total{phase=\"decode\"} 2\n",
           "gatehouse_step_bound_seconds_total{phase=\"prefill\"} 0\n",
           "gatehouse_step_roofline_ratio{phase=\"decode\"} 0.5\n",
           "gatehouse_machine_read_bytes_per_second 1000\n",
           "gatehouse_machine_operations_per_second{kind=\"float\"} 100\n",
           "gatehouse_machine_operations_per_second{kind=\"integer\"} 200\n",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(RooflineSeriesTest, ShowsNoShareOfLimitsThatWereNotMeasured) {
  prometheus::Registry registry;
  RooflineSeries series({}, {"prefill", "decode"}, registry);
  series.OnStep(0, Step(1));
  const std::string text = prometheus::TextSerializer().Serialize(registry.Collect());
  EXPECT_THAT(text, HasSubstr("gatehouse_step_read_bytes_total{kind=\"kv_cache\"} 200\n"));
  EXPECT_THAT(text, Not(HasSubstr("roofline_ratio")));
  EXPECT_THAT(text, Not(HasSubstr("gatehouse_machine")));
}

}  // namespace
}  // namespace gatehouse
