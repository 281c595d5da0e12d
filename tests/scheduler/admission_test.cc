#include "engine/scheduler/admission.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatehouse {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const SchedulerOptions kOptions = {
    .max_sequences = 4, .max_queued_requests = 3, .max_queued_tokens = 100};

Request RequestOf(int num_prompt_tokens) {
  Request request;
  request.prompt_ids.assign(num_prompt_tokens, 1);
  return request;
}

absl::Status Admit(const QueueLoad& load, const Request& request = RequestOf(1)) {
  return CheckAdmission(kOptions, load, request, TimePoint{});
}

TEST(CheckAdmissionTest, AdmitsUntilTheQueueIsFullAndNamesBothNumbers) {
  EXPECT_TRUE(Admit({.num_running = 4, .num_waiting = 2}).ok());
  const absl::Status full = Admit({.num_running = 4, .num_waiting = 3});
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()), AllOf(HasSubstr("3 requests"), HasSubstr("limit 3")));
}

TEST(CheckAdmissionTest, DoesNotCountRequestsThatFindAFreePlace) {
  EXPECT_TRUE(Admit({.num_running = 0, .num_waiting = 6}).ok());
  EXPECT_FALSE(Admit({.num_running = 0, .num_waiting = 7}).ok());
}

// 20 rows a step leave room for 4 decodes beside the least of a prompt.
TEST(CheckAdmissionTest, CountsThePlacesThatStepsHaveRoomFor) {
  SchedulerOptions options = kOptions;
  options.max_sequences = 64;
  options.max_step_tokens = 20;
  const auto admit = [&](int32_t num_waiting) {
    return CheckAdmission(options, {.num_running = 3, .num_waiting = num_waiting}, RequestOf(1),
                          TimePoint{});
  };
  EXPECT_TRUE(admit(3).ok());
  EXPECT_FALSE(admit(4).ok());
}

TEST(CheckAdmissionTest, AQueueOfZeroStillFillsFreePlaces) {
  SchedulerOptions options = kOptions;
  options.max_queued_requests = 0;
  const auto admit = [&](int32_t num_waiting) {
    return CheckAdmission(options, {.num_running = 2, .num_waiting = num_waiting}, RequestOf(1),
                          TimePoint{});
  };
  EXPECT_TRUE(admit(1).ok());
  EXPECT_FALSE(admit(2).ok());
}

TEST(CheckAdmissionTest, BoundsTheTokensThatWait) {
  EXPECT_TRUE(Admit({.num_waiting = 1, .num_waiting_tokens = 60}, RequestOf(40)).ok());
  const absl::Status full = Admit({.num_waiting = 1, .num_waiting_tokens = 60}, RequestOf(41));
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()),
              AllOf(HasSubstr("60 prompt"), HasSubstr("41"), HasSubstr("limit 100")));
}

TEST(CheckAdmissionTest, LetsALongPromptIntoAnEmptyQueue) {
  EXPECT_TRUE(Admit({}, RequestOf(1000)).ok());
}

TEST(CheckAdmissionTest, RefusesWhileDraining) {
  EXPECT_EQ(Admit({.draining = true}).code(), absl::StatusCode::kUnavailable);
}

TEST(CheckAdmissionTest, RefusesWhatComesAfterItsDeadline) {
  Request request = RequestOf(1);
  request.deadline = TimePoint{} + std::chrono::seconds(2);
  EXPECT_TRUE(CheckAdmission(kOptions, {}, request, request.deadline - Duration(1)).ok());
  EXPECT_EQ(CheckAdmission(kOptions, {}, request, request.deadline).code(),
            absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace gatehouse
