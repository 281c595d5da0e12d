#include "server/grpc_status.h"

#include <algorithm>

#include "absl/strings/cord.h"
#include "absl/strings/str_format.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace gatehouse {
namespace {

constexpr char kHoldsClientText[] = "gatehouse/holds-client-text";

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status, std::optional<Duration> retry_after) {
  if (status.ok()) return grpc::Status::OK;
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(std::string(status.message()));
  if (status.code() == absl::StatusCode::kInvalidArgument) {
    const size_t colon = details.message().find(':');
    if (colon != std::string::npos) {
      google::rpc::BadRequest bad_request;
      auto& violation = *bad_request.add_field_violations();
      violation.set_field(details.message().substr(0, colon));
      violation.set_description(
          details.message().substr(std::min(colon + 2, details.message().size())));
      details.add_details()->PackFrom(bad_request);
    }
  }
  if (retry_after) {
    google::rpc::RetryInfo retry;
    const int64_t nanos = std::max<int64_t>(0, retry_after->count());
    retry.mutable_retry_delay()->set_seconds(nanos / 1'000'000'000);
    retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
    details.add_details()->PackFrom(retry);
  }
  const auto code = static_cast<grpc::StatusCode>(status.code());  // the same numbers
  if (details.details().empty()) return grpc::Status(code, details.message());
  return grpc::Status(code, details.message(), details.SerializeAsString());
}

absl::Status InternalError(const std::string& id) {
  return absl::InternalError(
      absl::StrFormat("internal error, the server's log has more under the id %s", id));
}

std::string CodeName(absl::StatusCode code) { return absl::StatusCodeToString(code); }

absl::Status WithClientText(absl::Status status) {
  status.SetPayload(kHoldsClientText, absl::Cord());
  return status;
}

std::string TextForLog(const absl::Status& status) {
  std::string text(status.message());
  if (!status.GetPayload(kHoldsClientText)) return text;
  return text.substr(0, text.find(':')) + ": (the client has the text)";
}

}  // namespace gatehouse
