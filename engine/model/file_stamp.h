// What tells whether a file is still the one that was read before, with or without reading it.
// Values; one thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/base/thread_pool.h"

namespace gatehouse {

struct FileStamp {
  std::string name;  // without its folder
  int64_t num_bytes = 0;
  // Device, inode, and the times of the last change of contents and of the inode, which no program
  // can set back: the same identity is the same contents. Empty where the file is so young that a
  // change within the clock's grain might leave it.
  std::string identity;
  uint64_t checksum = 0;  // of the contents; 0: not read yet
};

// FAILED_PRECONDITION naming a file that cannot be looked at. Reads no contents.
absl::StatusOr<std::vector<FileStamp>> StampFiles(const std::vector<std::string>& paths);

// Reads stamps[i], the file paths[i], whole for its checksum. FAILED_PRECONDITION likewise.
absl::Status ReadChecksum(const std::string& path, ThreadPool& pool, FileStamp& stamp);

// FAILED_PRECONDITION naming a file that is no longer what the stamps, with checksums, say. Reads
// contents only where the identity does not answer.
absl::Status CheckUnchanged(const std::vector<std::string>& paths, ThreadPool& pool,
                            const std::vector<FileStamp>& stamps);

}  // namespace gatehouse
