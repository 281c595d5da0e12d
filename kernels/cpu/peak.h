// Loops of nothing but the instructions that a kernel lives of: what they reach is the most that
// this machine has. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace gatehouse::cpu {

struct PeakLoops {
  // Each does so many rounds, at least 1, and returns the operations in them.
  double (*float_operations)(int64_t num_rounds);
  double (*integer_operations)(int64_t num_rounds);
  // Streams through the bytes, a multiple of 128, with prefetch.
  void (*read)(const char* data, size_t num_bytes);
};

// For a name of isa_list.h. peak_x86.cc or peak_generic.cc.
PeakLoops PeakLoopsOf(std::string_view isa);

PeakLoops GenericPeakLoops();  // portable code

}  // namespace gatehouse::cpu
