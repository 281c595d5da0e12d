#include "kernels/cpu/memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_format.h"

namespace gatehouse::cpu {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kHugePage = size_t{2} << 20;

constexpr size_t RoundUp(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

absl::Status Refused(size_t num_bytes) {
  return absl::ResourceExhaustedError(
      absl::StrFormat("the system refused %u bytes of memory", num_bytes));
}

absl::StatusOr<Buffer> AllocateSmall(size_t num_bytes) {
  const size_t rounded = RoundUp(num_bytes, kLine);
  void* data = std::aligned_alloc(kLine, rounded);
  if (data == nullptr) return Refused(num_bytes);
  std::memset(data, 0, rounded);
  return Buffer(data, num_bytes, [](void* data, size_t) { std::free(data); });
}

// Maps a huge page more than needed and gives back what lies before the first boundary and after
// the end.
absl::StatusOr<Buffer> AllocateLarge(size_t num_bytes) {
  if (num_bytes > SIZE_MAX / 2) return Refused(num_bytes);
  const size_t rounded = RoundUp(num_bytes, kHugePage), mapped = rounded + kHugePage;
  void* mapping = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return Refused(num_bytes);
  const uintptr_t start = reinterpret_cast<uintptr_t>(mapping);
  const size_t before = RoundUp(start, kHugePage) - start, after = kHugePage - before;
  char* data = static_cast<char*>(mapping) + before;
  if (before > 0) munmap(mapping, before);
  if (after > 0) munmap(data + rounded, after);
  // A hint: without huge pages the memory is the same, only slower.
  madvise(data, rounded, MADV_HUGEPAGE);
  return Buffer(data, num_bytes,
                [](void* data, size_t size) { munmap(data, RoundUp(size, kHugePage)); });
}

}  // namespace

absl::StatusOr<Buffer> AllocateZeroed(size_t num_bytes) {
  if (num_bytes == 0) return Buffer();
  return num_bytes < kHugePage ? AllocateSmall(num_bytes) : AllocateLarge(num_bytes);
}

}  // namespace gatehouse::cpu
