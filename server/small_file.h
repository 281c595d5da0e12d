// Files that operators give: read whole, and watched for changes. Any thread.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace gatehouse {

// FAILED_PRECONDITION naming the file when it cannot be read, is empty or has more than
// `max_bytes`.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes);

// Differs when the file was replaced or written to; "" when there is none. Follows links, as
// mounted secrets are exchanged by pointing a link elsewhere.
std::string FileStamp(const std::string& path);

}  // namespace gatehouse
