// What the tests of operations share: every back end under test, reproducible numbers, comparisons.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/isa_list.h"

namespace gatehouse {

inline std::unique_ptr<Backend> MakeCpu(const std::string& isa, int num_threads = 1) {
  return *MakeBackend("cpu", {.num_threads = num_threads, .isa = isa});
}

// The instruction sets of this machine; the first one is the best.
inline std::vector<std::string> Isas() {
  std::vector<std::string> names;
  for (const cpu::IsaKernels* isa : cpu::SupportedIsas()) names.push_back(isa->name);
  return names;
}

// Every instruction set with 1, 2 and 4 threads.
inline std::vector<std::unique_ptr<Backend>> AllCpuBackends() {
  std::vector<std::unique_ptr<Backend>> backends;
  for (const std::string& isa : Isas()) {
    for (const int num_threads : {1, 2, 4}) backends.push_back(MakeCpu(isa, num_threads));
  }
  return backends;
}

inline std::vector<float> RandomFloats(uint32_t seed, int64_t count, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// Equal in every bit; NaN equals itself.
inline bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

}  // namespace gatehouse
