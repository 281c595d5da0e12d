// What a server says beside the code and the text of an error: which fields are at fault and when
// to try again. Pure functions, any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace gatehouse {

// The payload of an absl::Status that holds the serialised google.rpc.Status
// (grpc-status-details-bin).
inline constexpr char kStatusDetailsUrl[] = "type.googleapis.com/google.rpc.Status";

struct FieldViolation {
  std::string field;  // path in the request, such as sampling.top_p
  std::string description;
};

struct RpcError {
  std::string code;  // as gRPC spells it: INVALID_ARGUMENT
  std::string message;
  std::vector<FieldViolation> violations;
  std::optional<double> retry_delay_seconds;
};

// Details that cannot be parsed are left out.
RpcError DecodeError(const absl::Status& status);

// For people: "INVALID_ARGUMENT: text", one indented line for each violation that the text does not
// already name, and one about trying again.
std::string DescribeError(const absl::Status& status);

std::string CodeName(absl::StatusCode code);

}  // namespace gatehouse
