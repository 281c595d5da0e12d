#include <cstring>

#include "tests/bench/machine_limits.h"

namespace gatehouse::bench {

double RunFmas(int64_t num_rounds) {
  constexpr int kChains = 96;
  volatile float factor = 0.5f;
  const float a = factor;
  float sum[kChains] = {};
  for (int64_t i = 0; i < num_rounds; ++i) {
    for (float& s : sum) s = __builtin_fmaf(s, a, a);
  }
  __asm__ volatile("" : : "r"(&sum[0]) : "memory");
  return static_cast<double>(num_rounds) * kChains * 2;
}

void ReadAll(const char* data, size_t num_bytes) {
  uint64_t sum[16] = {};
  for (size_t i = 0; i < num_bytes; i += 128) {
    __builtin_prefetch(data + i + 8192);
    uint64_t line[16];
    std::memcpy(line, data + i, sizeof line);
    for (int j = 0; j < 16; ++j) sum[j] ^= line[j];
  }
  __asm__ volatile("" : : "r"(&sum[0]) : "memory");
}

}  // namespace gatehouse::bench
