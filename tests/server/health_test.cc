#include "server/health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gatehouse {
namespace {

using ::testing::HasSubstr;

constexpr TimePoint kStart(std::chrono::hours(1));

TimePoint After(double seconds) {
  return kStart + std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

EngineStatus Working(TimePoint last_step) { return {.last_step = last_step, .has_work = true}; }

TEST(ProgressJudgeTest, StallsWithinTwoSecondsWhenStepsAreShort) {
  ProgressJudge judge({});
  EXPECT_TRUE(judge.Judge(Working(kStart), 0.05, After(0)).serving());
  EXPECT_TRUE(judge.Judge(Working(kStart), 0.05, After(1.4)).serving());
  const HealthReport stalled = judge.Judge(Working(kStart), 0.05, After(1.8));
  EXPECT_EQ(stalled.state, EngineState::kStalled);
  EXPECT_THAT(stalled.reason, HasSubstr("1.8 s"));
  EXPECT_TRUE(judge.Judge(Working(After(1.9)), 0.05, After(2)).serving()) << "and back";
}

TEST(ProgressJudgeTest, WaitsForSeveralOfTheLongestStep) {
  ProgressJudge judge({});
  EXPECT_TRUE(judge.Judge(Working(kStart), 3, After(0)).serving());
  EXPECT_TRUE(judge.Judge(Working(kStart), 3, After(11.9)).serving());
  EXPECT_FALSE(judge.Judge(Working(kStart), 3, After(12.1)).serving());
}

TEST(ProgressJudgeTest, KnowsNotHowLongTheFirstStepTakes) {
  ProgressJudge judge({});
  EXPECT_TRUE(judge.Judge(Working(kStart), 0, After(0)).serving());
  EXPECT_TRUE(judge.Judge(Working(kStart), 0, After(19)).serving());
  EXPECT_FALSE(judge.Judge(Working(kStart), 0, After(21)).serving());
}

TEST(ProgressJudgeTest, AnIdleEngineThatGetsWorkIsNotStalled) {
  ProgressJudge judge({});
  EngineStatus idle = Working(kStart);
  idle.has_work = false;
  EXPECT_TRUE(judge.Judge(idle, 0.05, After(3600)).serving());
  EXPECT_TRUE(judge.Judge(Working(kStart), 0.05, After(3601)).serving());
  EXPECT_FALSE(judge.Judge(Working(kStart), 0.05, After(3603)).serving());
}

TEST(ProgressJudgeTest, AStallIsToldBeforeADrain) {
  ProgressJudge judge({});
  EngineStatus status = Working(kStart);
  status.draining = true;
  EXPECT_EQ(judge.Judge(status, 0.05, After(0)).state, EngineState::kDraining);
  EXPECT_EQ(judge.Judge(status, 0.05, After(9)).state, EngineState::kStalled);
}

TEST(ServingStateTest, LoadsUntilItIsTold) {
  ServingState state;
  EXPECT_EQ(state.engine(), nullptr);
  EXPECT_EQ(
      ReadyJson(state.health()),
      "{\"ready\":false,\"state\":\"loading\",\"reasons\":[\"the model is being loaded\"]}\n");
  EXPECT_EQ(RetryAfter(state, "default"), std::chrono::seconds(1));
}

}  // namespace
}  // namespace gatehouse
