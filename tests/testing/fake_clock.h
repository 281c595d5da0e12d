// A clock that moves only when told. Thread-safe.
#pragma once

#include <atomic>

#include "kernels/base/clock.h"

namespace gatehouse {

class FakeClock final : public Clock {
 public:
  TimePoint Now() const override { return TimePoint(Duration(now_.load())); }
  void Advance(Duration duration) { now_ += duration.count(); }

 private:
  std::atomic<Duration::rep> now_{0};
};

}  // namespace gatehouse
