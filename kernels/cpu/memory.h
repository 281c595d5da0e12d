// Memory of the CPU back end: weights, caches, activations. Any thread.
#pragma once

#include <cstddef>

#include "absl/status/statusor.h"
#include "kernels/buffer.h"

namespace gatehouse::cpu {

// Zeroed, aligned to 64 bytes; from 2 MiB on to 2 MiB, with huge pages asked for (2 to 13 % faster
// to stream). The system gives pages on first touch: an allocation that succeeds may still be more
// than the machine has, which the memory plan checks before. RESOURCE_EXHAUSTED with the number of
// bytes when it is refused.
absl::StatusOr<Buffer> AllocateZeroed(size_t num_bytes);

}  // namespace gatehouse::cpu
