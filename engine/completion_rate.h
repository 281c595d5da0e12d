// How fast requests end, from the last half minute or so of work; tells refused clients when to
// come back. A value: one thread at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/base/clock.h"

namespace gatehouse {

class CompletionRate {
 public:
  static constexpr Duration kShortestRetry = std::chrono::milliseconds(500);
  static constexpr Duration kLongestRetry = std::chrono::seconds(60);

  // `num_ended` requests ended in a step that took `duration`. Idle time does not count.
  void Add(int32_t num_ended, Duration duration) {
    constexpr double kMemorySeconds = 30;
    const double seconds = std::max(ToSeconds(duration), 0.0);
    const double kept = std::exp(-seconds / kMemorySeconds);
    ended_ = ended_ * kept + num_ended;
    busy_seconds_ = busy_seconds_ * kept + seconds;
  }

  bool is_known() const { return ended_ > 0; }

  // Until an eighth of `num_waiting` requests have left the queue: some who come back then find
  // room, and they do not all come at the moment that one place is free.
  Duration RetryAfter(int32_t num_waiting) const {
    if (ended_ <= 0) return std::chrono::seconds(1);  // nothing is known yet
    const double places = std::max(num_waiting / 8.0, 1.0);
    const double seconds = std::min(places * busy_seconds_ / ended_, ToSeconds(kLongestRetry));
    return std::max(kShortestRetry, std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9)));
  }

 private:
  double ended_ = 0;
  double busy_seconds_ = 0;
};

}  // namespace gatehouse
