// Monotonic time as an argument, so that schedulers and deadlines are tested without waiting.
#pragma once

#include <chrono>

namespace gatehouse {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;
inline constexpr TimePoint kNoDeadline = TimePoint::max();

inline double ToSeconds(Duration d) { return std::chrono::duration<double>(d).count(); }

// Thread-safe. Never goes back.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint Now() const = 0;
};

class SteadyClock final : public Clock {
 public:
  TimePoint Now() const override { return std::chrono::steady_clock::now(); }
};

}  // namespace gatehouse
