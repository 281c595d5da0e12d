// Bytes that many hold together, up to a limit. Any thread; no locks.
#pragma once

#include <atomic>
#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"

namespace gatehouse {

class ByteBudget {
 public:
  explicit ByteBudget(size_t limit) : limit_(limit) {}

  // RESOURCE_EXHAUSTED with the numbers, and nothing is taken, when they would exceed the limit.
  absl::Status Take(size_t num_bytes) {
    size_t used = used_;
    do {
      if (num_bytes > limit_ - used) {
        return absl::ResourceExhaustedError(
            absl::StrFormat("open calls hold %u bytes of requests and %u would join them, limit %u",
                            used, num_bytes, limit_));
      }
    } while (!used_.compare_exchange_weak(used, used + num_bytes));
    return absl::OkStatus();
  }
  void Give(size_t num_bytes) { used_ -= num_bytes; }  // as many as were taken

 private:
  const size_t limit_;
  std::atomic<size_t> used_ = 0;  // at most limit_
};

}  // namespace gatehouse
