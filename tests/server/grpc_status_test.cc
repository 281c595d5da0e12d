#include "server/grpc_status.h"

#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace gatehouse {
namespace {

TEST(ToGrpcStatusTest, KeepsCodeAndTextAndAddsTheTimeToWait) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  const grpc::Status plain = ToGrpcStatus(absl::ResourceExhaustedError("full"));
  EXPECT_EQ(plain.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(plain.error_details().empty());
  const grpc::Status retry =
      ToGrpcStatus(absl::UnavailableError("draining"), std::chrono::milliseconds(2250));
  google::rpc::Status details;
  google::rpc::RetryInfo info;
  ASSERT_TRUE(details.ParseFromString(retry.error_details()));
  ASSERT_TRUE(details.details(0).UnpackTo(&info));
  EXPECT_EQ(info.retry_delay().seconds(), 2);
  EXPECT_EQ(info.retry_delay().nanos(), 250'000'000);
  EXPECT_EQ(details.code(), static_cast<int>(grpc::StatusCode::UNAVAILABLE));
}

TEST(TextForLogTest, LeavesOutWhatMayBeTheClients) {
  const absl::Status status = absl::InvalidArgumentError("chat: no: \"my secret\"");
  EXPECT_EQ(TextForLog(status), "chat: no: \"my secret\"");
  const absl::Status marked = WithClientText(status);
  EXPECT_EQ(marked.message(), status.message()) << "the client's own";
  EXPECT_EQ(TextForLog(marked), "chat: (the client has the text)");
}

}  // namespace
}  // namespace gatehouse
