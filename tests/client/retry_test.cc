#include "client/retry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/cord.h"
#include "client/rpc_error.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace gatehouse {
namespace {

using std::chrono::milliseconds;
using ::testing::Optional;

constexpr RetryPolicy kPolicy{.max_tries = 5,
                              .first_wait = milliseconds(100),
                              .max_wait = milliseconds(300),
                              .max_server_wait = milliseconds(2000)};

absl::Status WithRetryInfo(absl::StatusCode code, double seconds) {
  google::rpc::RetryInfo info;
  info.mutable_retry_delay()->set_seconds(static_cast<int64_t>(seconds));
  info.mutable_retry_delay()->set_nanos(
      static_cast<int32_t>((seconds - static_cast<int64_t>(seconds)) * 1e9));
  google::rpc::Status details;
  details.add_details()->PackFrom(info);
  absl::Status status(code, "later");
  status.SetPayload(kStatusDetailsUrl, absl::Cord(details.SerializeAsString()));
  return status;
}

TEST(DelayBeforeRetryTest, DoublesUpToTheLimit) {
  const absl::Status status = absl::UnavailableError("");
  for (const auto& [num_tries, wait] : {std::pair{1, 100}, {2, 200}, {3, 300}, {4, 300}}) {
    EXPECT_THAT(DelayBeforeRetry(kPolicy, status, num_tries, 0), Optional(milliseconds(wait)));
  }
  EXPECT_EQ(DelayBeforeRetry(kPolicy, status, 5, 0), std::nullopt);
}

TEST(DelayBeforeRetryTest, ChanceShortensAWaitByUpToHalf) {
  EXPECT_THAT(DelayBeforeRetry(kPolicy, absl::UnavailableError(""), 2, 0.5),
              Optional(milliseconds(150)));
}

TEST(DelayBeforeRetryTest, NeverComesBeforeTheServerAsks) {
  for (const auto code : {absl::StatusCode::kResourceExhausted, absl::StatusCode::kUnavailable}) {
    EXPECT_THAT(DelayBeforeRetry(kPolicy, WithRetryInfo(code, 1.5), 1, 0),
                Optional(milliseconds(1500)));
    EXPECT_THAT(DelayBeforeRetry(kPolicy, WithRetryInfo(code, 1.5), 2, 0.5),
                Optional(milliseconds(1600)));
    EXPECT_THAT(DelayBeforeRetry(kPolicy, WithRetryInfo(code, -7), 1, 0.5),
                Optional(milliseconds(50)));
  }
}

TEST(DelayBeforeRetryTest, DoesNotWaitForAServerThatAsksForTooLong) {
  for (const double seconds : {2.1, 1e9, 9e18}) {
    EXPECT_EQ(DelayBeforeRetry(kPolicy,
                               WithRetryInfo(absl::StatusCode::kResourceExhausted, seconds), 1, 0),
              std::nullopt);
  }
}

TEST(DelayBeforeRetryTest, OtherFailuresStay) {
  // A message that is too large is RESOURCE_EXHAUSTED, too, but nobody says when to try again.
  EXPECT_EQ(DelayBeforeRetry(kPolicy, absl::ResourceExhaustedError(""), 1, 0), std::nullopt);
  for (const auto code : {absl::StatusCode::kInvalidArgument, absl::StatusCode::kDeadlineExceeded,
                          absl::StatusCode::kInternal, absl::StatusCode::kCancelled}) {
    EXPECT_EQ(DelayBeforeRetry(kPolicy, WithRetryInfo(code, 0.1), 1, 0), std::nullopt);
  }
  EXPECT_EQ(DelayBeforeRetry({.max_tries = 1}, absl::UnavailableError(""), 1, 0), std::nullopt);
}

}  // namespace
}  // namespace gatehouse
