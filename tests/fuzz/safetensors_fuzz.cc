// A safetensors file: what opens must lie inside the file, tensor by tensor.
#include <numeric>

#include "engine/model/safetensors.h"
#include "kernels/base/check.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const gatehouse::MemoryFile file({reinterpret_cast<const char*>(data), size});
  const auto opened = gatehouse::SafetensorsFile::Open(file.path());
  if (!opened.ok()) return 0;
  size_t num_bytes = 0;
  for (const auto& [name, tensor] : opened->tensors()) {
    const std::span<const std::byte> bytes = opened->BytesOf(tensor);
    num_bytes += bytes.size();
    // Reads every byte: AddressSanitizer and the page protection are the judges.
    volatile int sum = std::accumulate(bytes.begin(), bytes.end(), 0, [](int all, std::byte one) {
      return all ^ std::to_integer<int>(one);
    });
    (void)sum;
  }
  GATEHOUSE_CHECK(num_bytes < size) << num_bytes << " bytes of tensors in a file of " << size;
  return 0;
}
