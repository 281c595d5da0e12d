// The back end's own memory for one operation at a time: grows to what is asked for and stays so.
// Reserved when a model is loaded (Backend::ReserveScratch), so that no step grows it. Owned by the
// back end, used by the thread that calls it.
#pragma once

#include <cstddef>
#include <new>
#include <utility>

#include "kernels/buffer.h"
#include "kernels/cpu/memory.h"

namespace gatehouse::cpu {

class OpScratch {
 public:
  // At least that many bytes, 64-byte aligned, of any content; the same memory at every call.
  // Throws std::bad_alloc, as every container does.
  char* Take(size_t num_bytes) {
    if (num_bytes > memory_.num_bytes()) {
      memory_ = Buffer();
      absl::StatusOr<Buffer> grown = AllocateZeroed(num_bytes);
      if (!grown.ok()) throw std::bad_alloc();
      memory_ = *std::move(grown);
    }
    return memory_.as<char>();
  }

 private:
  Buffer memory_;
};

}  // namespace gatehouse::cpu
