// The back end's own memory for one operation at a time: grows to what is asked for and stays so.
// Reserved when a model is loaded (Backend::ReserveScratch), so that no step grows it. Owned by the
// back end, used by the thread that calls it.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace gatehouse::cpu {

class OpScratch {
 public:
  // At least that many bytes, 64-byte aligned, of any content; the same memory at every call.
  // Throws std::bad_alloc, as every container does.
  char* Take(size_t num_bytes) {
    if (num_bytes > num_bytes_) {
      memory_ = nullptr;
      num_bytes_ = 0;
      memory_.reset(static_cast<char*>(::operator new(num_bytes, kAlignment)));
      num_bytes_ = num_bytes;
    }
    return memory_.get();
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(char* memory) const { ::operator delete(memory, kAlignment); }
  };
  std::unique_ptr<char, Free> memory_;
  size_t num_bytes_ = 0;
};

}  // namespace gatehouse::cpu
