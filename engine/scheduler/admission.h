// Who may enter the queue: a pure decision from the load to a status. Any thread.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "engine/engine_config.h"
#include "engine/request/request.h"
#include "kernels/base/clock.h"

namespace gatehouse {

struct QueueLoad {
  int32_t num_running = 0;
  int32_t num_waiting = 0;  // accepted, not running; those on their way to the scheduler too
  int64_t num_waiting_tokens = 0;
  bool draining = false;
};

// UNAVAILABLE while draining; DEADLINE_EXCEEDED when the request comes too late; RESOURCE_EXHAUSTED
// with what is queued and the limit when the queue is full. Requests that will find a free place at
// once do not count as queued, and a prompt longer than the whole token limit may enter an empty
// queue: else it could never run.
absl::Status CheckAdmission(const SchedulerOptions& options, const QueueLoad& load,
                            const Request& request, TimePoint now);

}  // namespace gatehouse
