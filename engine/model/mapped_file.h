// A whole file, mapped read-only. Move-only owner; the bytes live as long as it does. Any thread.
//
// The file must not be truncated while it is mapped: reading a page that is gone raises SIGBUS, as
// with every mmap. Replace a model by renaming, not by writing into it.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace gatehouse {

class MappedFile {
 public:
  // NOT_FOUND when there is no such file; FAILED_PRECONDITION "<file>: <problem>, expected <what>"
  // when it is no regular file, empty, or cannot be opened or mapped.
  static absl::StatusOr<MappedFile> Open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return bytes_; }
  // Gives the resident pages back; they are read from the file again when next touched.
  void DropPages() const;

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::span<const std::byte> bytes_;
};

}  // namespace gatehouse
