// Measures what this machine can do at most with an instruction set and the threads of a pool.
#pragma once

#include <string_view>

#include "kernels/base/thread_pool.h"
#include "kernels/machine_limits.h"

namespace gatehouse::cpu {

// Takes some 0.1 s, and 128 MiB meanwhile: the read limit is 0 where they cannot be had.
MachineLimits MeasureLimits(std::string_view isa, ThreadPool& pool);

}  // namespace gatehouse::cpu
