#include "engine/model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "absl/strings/str_format.h"

namespace gatehouse {
namespace {

absl::Status SystemError(const std::string& path, const char* operation, int error) {
  const std::string text = absl::StrFormat("%s: %s failed (%s), expected a readable file", path,
                                           operation, std::generic_category().message(error));
  return error == ENOENT ? absl::NotFoundError(text) : absl::FailedPreconditionError(text);
}

absl::StatusOr<std::span<const std::byte>> MapDescriptor(const std::string& path, int descriptor) {
  struct stat file_stat;
  if (fstat(descriptor, &file_stat) != 0) return SystemError(path, "fstat", errno);
  if (!S_ISREG(file_stat.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: not a regular file, expected one", path));
  }
  if (file_stat.st_size == 0) {
    return absl::FailedPreconditionError(absl::StrFormat("%s: empty, expected tensors", path));
  }
  const size_t num_bytes = static_cast<size_t>(file_stat.st_size);
  void* data = mmap(nullptr, num_bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
  if (data == MAP_FAILED) return SystemError(path, "mmap", errno);
  return std::span<const std::byte>(static_cast<const std::byte*>(data), num_bytes);
}

}  // namespace

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  // O_NONBLOCK: a named pipe is refused, not waited for.
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return SystemError(path, "open", errno);
  absl::StatusOr<std::span<const std::byte>> bytes = MapDescriptor(path, descriptor);
  close(descriptor);
  if (!bytes.ok()) return bytes.status();
  return MappedFile(*bytes);
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::DropPages() const {
  if (!bytes_.empty()) {
    madvise(const_cast<std::byte*>(bytes_.data()), bytes_.size(), MADV_DONTNEED);
  }
}

}  // namespace gatehouse
