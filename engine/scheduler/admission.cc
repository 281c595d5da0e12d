#include "engine/scheduler/admission.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace gatehouse {

absl::Status CheckAdmission(const SchedulerOptions& options, const QueueLoad& load,
                            const Request& request, TimePoint now) {
  if (load.draining) {
    return absl::UnavailableError("the server is draining and takes no new requests");
  }
  if (now >= request.deadline) {
    return absl::DeadlineExceededError(
        absl::StrFormat("the deadline passed %.3f s before the request could be queued",
                        ToSeconds(now - request.deadline)));
  }
  const int32_t free_places = std::max(MaxRunning(options) - load.num_running, 0);
  const int32_t num_queued = std::max(load.num_waiting - free_places, 0);
  if (load.num_waiting >= free_places && num_queued >= options.max_queued_requests) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "the queue is full: %d requests wait, limit %d", num_queued, options.max_queued_requests));
  }
  const auto num_prompt_tokens = static_cast<int64_t>(request.prompt_ids.size());
  if (load.num_waiting > 0 &&
      num_prompt_tokens > options.max_queued_tokens - load.num_waiting_tokens) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("the queue is full: %d prompt tokens wait and %d would join them, limit %d",
                        load.num_waiting_tokens, num_prompt_tokens, options.max_queued_tokens));
  }
  return absl::OkStatus();
}

}  // namespace gatehouse
