// absl::Status to what clients, labels and the log get of it. Pure; any thread.
#pragma once

#include <grpcpp/support/status.h>

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "kernels/base/clock.h"

namespace gatehouse {

// INVALID_ARGUMENT "<path>: <text>" gets google.rpc.BadRequest, a `retry_after`
// google.rpc.RetryInfo.
grpc::Status ToGrpcStatus(const absl::Status& status, std::optional<Duration> retry_after = {});

// What a client is told of our own faults: nothing but the id that the log repeats.
absl::Status InternalError(const std::string& id);

// OK, CANCELLED, ... as labels and log lines have them.
std::string CodeName(absl::StatusCode code);

// Marks a status whose text may repeat what the client wrote behind the first ':': the client gets
// it, the log does not.
absl::Status WithClientText(absl::Status status);
std::string TextForLog(const absl::Status& status);

}  // namespace gatehouse
