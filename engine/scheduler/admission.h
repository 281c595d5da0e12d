// Who may enter the queue: a pure decision from the load to a status. Any thread.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "engine/engine_config.h"
#include "engine/request/request.h"
#include "kernels/base/clock.h"

namespace gatehouse {

// Of the request's tenant.
struct TenantQueueLoad {
  int32_t num_waiting = 0;
  int64_t num_waiting_tokens = 0;
  double share = 1;  // (0, 1]: its weight's part of those who have requests, itself counted
};

struct QueueLoad {
  int32_t num_running = 0;
  int32_t num_waiting = 0;  // accepted, not running; those on their way to the scheduler too
  int64_t num_waiting_tokens = 0;
  bool draining = false;
  TenantQueueLoad tenant;
};

// UNAVAILABLE while draining; DEADLINE_EXCEEDED when the request comes too late; RESOURCE_EXHAUSTED
// with what is queued and the limit when the queue, or the tenant's part of it, is full. Requests
// that will find a free place at once do not count as queued, and a prompt longer than the whole
// token limit may enter an empty queue: else it could never run. A queue that others have filled is
// open to a tenant that has less than its share of it in there, so that no flood keeps others out.
// Shares shrink as tenants come, what they have queued does not: each may hold up to its share of
// the moment it came, so that the queue holds at most its limit times the tenants in it, and
// (1 + 1/2 + .. + 1/n) limits where n of equal weight come one after the other.
absl::Status CheckAdmission(const SchedulerOptions& options, const QueueLoad& load,
                            const Request& request, TimePoint now);

// The part of CheckAdmission that no request of the tenant can pass, whatever it holds: UNAVAILABLE
// while draining, RESOURCE_EXHAUSTED when too many requests wait.
absl::Status CheckQueueOpen(const SchedulerOptions& options, const QueueLoad& load);

}  // namespace gatehouse
