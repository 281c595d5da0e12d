// An open file descriptor, closed when it goes, and whole reads and writes at an offset. Move-only;
// ReadAt may be called by several threads at once.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

namespace gatehouse {

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }

  // O_NONBLOCK: a named pipe is found out, not waited for.
  static Descriptor OpenToRead(const std::string& path) {
    return Descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  }

  bool is_open() const { return number_ >= 0; }
  int number() const { return number_; }

  // False with errno set; 0 where the file ends too early.
  bool ReadAt(std::span<std::byte> to, int64_t offset) const {
    while (!to.empty()) {
      const ssize_t count = pread(number_, to.data(), to.size(), offset);
      if (count < 0 && errno == EINTR) continue;
      if (count == 0) errno = 0;
      if (count <= 0) return false;
      to = to.subspan(static_cast<size_t>(count));
      offset += count;
    }
    return true;
  }
  // False with errno set.
  bool WriteAt(std::span<const std::byte> from, int64_t offset) const {
    while (!from.empty()) {
      const ssize_t count = pwrite(number_, from.data(), from.size(), offset);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return false;
      from = from.subspan(static_cast<size_t>(count));
      offset += count;
    }
    return true;
  }

 private:
  int number_ = -1;
};

}  // namespace gatehouse
