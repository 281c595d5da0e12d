// JSON lines for --json. Messages follow protobuf's JSON mapping with the field names of the .proto
// file: 64-bit integers are strings, bytes are base64.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace google::protobuf {
class Message;
}

namespace gatehouse {

std::string ToJsonLine(const google::protobuf::Message& message);

// {"error": {"code": ..., "message": ..., "violations": [{"field", "description"}],
//            "retry_delay_seconds": ...}}
std::string ToJsonLine(const absl::Status& error);

}  // namespace gatehouse
