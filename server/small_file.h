// Files that operators name: read whole, watched for changes, written whole. Any thread.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gatehouse {

// FAILED_PRECONDITION naming the file when it cannot be read, is empty or has more than
// `max_bytes`.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes);

// Beside and renamed, so that whoever waits for the file never reads half of it. UNAVAILABLE naming
// the file when it cannot be written.
absl::Status WriteAtomically(const std::string& path, const std::string& text);

// Differs when the file was replaced or written to; "" when there is none. Follows links, as
// mounted secrets are exchanged by pointing a link elsewhere.
std::string FileStamp(const std::string& path);

}  // namespace gatehouse
