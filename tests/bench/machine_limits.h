// What this machine can do at most, measured in the run that quotes it: the bound beside each
// number of a kernel. One sample is not a limit (a neighbour may have had the core), so each call
// measures again and returns the best seen by this object.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/base/thread_pool.h"

namespace gatehouse::bench {

class MachineLimits {
 public:
  // Of 256-bit instructions. Operations (a fused multiply-add is two) and bytes a second, of all
  // threads of the pool.
  double FlopsPerSecond(ThreadPool& pool);
  double ReadBytesPerSecond(ThreadPool& pool, const char* data, size_t num_bytes);

 private:
  static constexpr int kMaxThreads = 256;
  double flops_[kMaxThreads + 1] = {};  // by number of threads
  double bytes_[kMaxThreads + 1] = {};
};

}  // namespace gatehouse::bench
