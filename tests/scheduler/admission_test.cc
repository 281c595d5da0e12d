#include "engine/scheduler/admission.h"

#include <memory>
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

// All that waits is the tenant's own.
QueueLoad OfOneTenant(QueueLoad load) {
  load.tenant = {.num_waiting = load.num_waiting, .num_waiting_tokens = load.num_waiting_tokens};
  return load;
}

absl::Status Admit(const QueueLoad& load, const Request& request = RequestOf(1)) {
  return CheckAdmission(kOptions, OfOneTenant(load), request, TimePoint{});
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
    return CheckAdmission(options, OfOneTenant({.num_running = 3, .num_waiting = num_waiting}),
                          RequestOf(1), TimePoint{});
  };
  EXPECT_TRUE(admit(3).ok());
  EXPECT_FALSE(admit(4).ok());
}

TEST(CheckAdmissionTest, AQueueThatOthersFilledIsOpenUpToATenantsShare) {
  const QueueLoad full = {.num_running = 4, .num_waiting = 90, .num_waiting_tokens = 100};
  const auto admit = [&](const TenantQueueLoad& tenant) {
    QueueLoad load = full;
    load.tenant = tenant;
    return CheckAdmission(kOptions, load, RequestOf(10), TimePoint{}).ok();
  };
  EXPECT_TRUE(admit({.num_waiting = 0, .num_waiting_tokens = 0, .share = 0.34}));
  EXPECT_TRUE(admit({.num_waiting = 1, .num_waiting_tokens = 20, .share = 0.34}));
  EXPECT_FALSE(admit({.num_waiting = 2, .num_waiting_tokens = 20, .share = 0.34}));  // of 3
  EXPECT_FALSE(admit({.num_waiting = 1, .num_waiting_tokens = 25, .share = 0.34}));  // of 100
}

TEST(CheckAdmissionTest, ATenantsOwnLimitOfTokensHoldsInAnEmptyQueueToo) {
  Request request = RequestOf(10);
  request.tenant = std::make_shared<const Tenant>(Tenant{.name = "acme", .max_queued_tokens = 25});
  const auto admit = [&](int32_t num_waiting, int64_t num_waiting_tokens) {
    return Admit({.num_waiting = num_waiting, .num_waiting_tokens = num_waiting_tokens}, request);
  };
  EXPECT_TRUE(admit(1, 15).ok());
  const absl::Status full = admit(1, 16);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()),
              AllOf(HasSubstr("\"acme\""), HasSubstr("16 prompt"), HasSubstr("limit 25")));
  request.prompt_ids.assign(50, 1);
  EXPECT_TRUE(admit(0, 0).ok()) << "a prompt above the limit may enter an empty queue";
}

TEST(CheckAdmissionTest, AQueueOfZeroStillFillsFreePlaces) {
  SchedulerOptions options = kOptions;
  options.max_queued_requests = 0;
  const auto admit = [&](int32_t num_waiting) {
    return CheckAdmission(options, OfOneTenant({.num_running = 2, .num_waiting = num_waiting}),
                          RequestOf(1), TimePoint{});
  };
  EXPECT_TRUE(admit(1).ok());
  EXPECT_FALSE(admit(2).ok());
}

// Four tenants of equal weight fill the queue one after the other: 12 + 6 + 4 + 3.
TEST(CheckAdmissionTest, EachTenantAddsItsShareOfTheMomentItCame) {
  SchedulerOptions options = kOptions;
  options.max_queued_requests = 12;
  QueueLoad load = {.num_running = 4};
  for (int num_tenants = 1; num_tenants <= 4; ++num_tenants) {
    load.tenant = {.share = 1.0 / num_tenants};
    while (CheckAdmission(options, load, RequestOf(0), TimePoint{}).ok()) {
      ++load.num_waiting;
      ++load.tenant.num_waiting;
    }
  }
  EXPECT_EQ(load.num_waiting, 25);
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

TEST(CheckQueueOpenTest, RefusesWhatNoRequestOfTheTenantCouldPass) {
  const QueueLoad full = OfOneTenant({.num_running = 4, .num_waiting = 3});
  EXPECT_EQ(CheckQueueOpen(kOptions, {.draining = true}).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(CheckQueueOpen(kOptions, {.num_running = 4, .num_waiting = 2}), absl::OkStatus());
  EXPECT_EQ(CheckQueueOpen(kOptions, full).code(), absl::StatusCode::kResourceExhausted);
  // How many tokens wait is for a request to be held against.
  EXPECT_EQ(CheckQueueOpen(kOptions, {.num_waiting = 1, .num_waiting_tokens = int64_t{1} << 40}),
            absl::OkStatus());
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
