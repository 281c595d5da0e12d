#include "tests/fuzz/memory_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include "kernels/base/check.h"

namespace gatehouse {

MemoryFile::MemoryFile(std::string_view content) : descriptor_(memfd_create("fuzz", 0)) {
  GATEHOUSE_CHECK(descriptor_ >= 0);
  const ssize_t written = write(descriptor_, content.data(), content.size());
  GATEHOUSE_CHECK(written == static_cast<ssize_t>(content.size())) << written;
  path_ = "/proc/self/fd/" + std::to_string(descriptor_);
}

MemoryFile::~MemoryFile() { close(descriptor_); }

}  // namespace gatehouse
