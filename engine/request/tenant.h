// Who a request belongs to, and what that buys: a value, immutable while requests hold it. A change
// of the tenants makes new values; the engine goes by `name`, and by the values of the latest
// request.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace gatehouse {

enum class Priority { kLow, kNormal, kHigh };
inline constexpr int kNumPriorities = 3;

// Of one priority or one tenant. Each output of a request counts.
struct QueueCounts {
  int32_t num_running = 0;
  int32_t num_waiting = 0;
  int64_t num_waiting_tokens = 0;
  bool operator==(const QueueCounts&) const = default;
};
using PriorityCounts = std::array<QueueCounts, kNumPriorities>;  // by Priority

struct Tenant {
  static constexpr int32_t kMaxWeight = 1000;

  std::string name = "default";
  int32_t weight = 1;  // [1, kMaxWeight]: share of the tokens when more is wanted than there is
  Priority max_priority = Priority::kHigh;  // a higher one in a request is lowered to it
  int32_t max_running_requests = 0;         // 0: no limit of its own; others wait
  int64_t max_queued_tokens = 0;            // 0: no limit of its own; others are refused
};

}  // namespace gatehouse
