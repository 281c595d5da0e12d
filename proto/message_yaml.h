// A message as YAML with the names of its fields: what operators write into files. Pure.
#pragma once

#include <google/protobuf/message.h>

#include <string>

#include "absl/status/status.h"

namespace gatehouse {

// Enums by name, in any case; .inf and .nan where a field is a number. INVALID_ARGUMENT names an
// unknown or repeated field, or the line.
absl::Status MessageFromYaml(const std::string& yaml, google::protobuf::Message& message);

std::string MessageToYaml(const google::protobuf::Message& message);

}  // namespace gatehouse
