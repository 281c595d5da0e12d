#include "client/rpc_error.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_format.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace gatehouse {

std::string CodeName(absl::StatusCode code) { return absl::StatusCodeToString(code); }

RpcError DecodeError(const absl::Status& status) {
  RpcError error{.code = CodeName(status.code()),
                 .message = std::string(status.message()),
                 .violations = {},
                 .retry_delay_seconds = std::nullopt};
  const auto payload = status.GetPayload(kStatusDetailsUrl);
  google::rpc::Status details;
  if (!payload.has_value() || !details.ParseFromString(std::string(*payload))) return error;
  for (const google::protobuf::Any& detail : details.details()) {
    google::rpc::BadRequest bad_request;
    google::rpc::RetryInfo retry;
    if (detail.Is<google::rpc::BadRequest>() && detail.UnpackTo(&bad_request)) {
      for (const auto& violation : bad_request.field_violations()) {
        error.violations.push_back({violation.field(), violation.description()});
      }
    } else if (detail.Is<google::rpc::RetryInfo>() && detail.UnpackTo(&retry)) {
      const google::protobuf::Duration& delay = retry.retry_delay();
      error.retry_delay_seconds = static_cast<double>(delay.seconds()) + delay.nanos() * 1e-9;
    }
  }
  return error;
}

std::string DescribeError(const absl::Status& status) {
  const RpcError error = DecodeError(status);
  std::string text = error.code;
  if (!error.message.empty()) text += ": " + error.message;
  for (const FieldViolation& violation : error.violations) {
    const bool said = error.message.find(violation.field) != std::string::npos &&
                      error.message.find(violation.description) != std::string::npos;
    if (!said) text += absl::StrFormat("\n  %s: %s", violation.field, violation.description);
  }
  if (error.retry_delay_seconds.has_value()) {
    text += absl::StrFormat("\n  try again in %.3g s", *error.retry_delay_seconds);
  }
  return text;
}

}  // namespace gatehouse
