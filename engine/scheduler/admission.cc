#include "engine/scheduler/admission.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

absl::Status CheckRequests(const SchedulerOptions& options, const QueueLoad& load) {
  const int32_t free_places = std::max(MaxRunning(options) - load.num_running, 0);
  const int32_t num_queued = std::max(load.num_waiting - free_places, 0);
  const int32_t tenant_num_queued = std::max(load.tenant.num_waiting - free_places, 0);
  const bool is_full = load.num_waiting >= free_places && num_queued >= options.max_queued_requests;
  if (!is_full || tenant_num_queued < load.tenant.share * options.max_queued_requests) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrFormat(
      "the queue is full: %d requests wait, limit %d", num_queued, options.max_queued_requests));
}

absl::Status CheckTokens(const SchedulerOptions& options, const QueueLoad& load,
                         const Request& request) {
  const auto num_prompt_tokens = static_cast<int64_t>(request.prompt_ids.size());
  const int64_t tenant_limit = request.tenant == nullptr ? 0 : request.tenant->max_queued_tokens;
  if (tenant_limit > 0 && load.tenant.num_waiting > 0 &&
      num_prompt_tokens > tenant_limit - load.tenant.num_waiting_tokens) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "tenant \"%s\": %d prompt tokens wait and %d would join them, limit %d",
        request.tenant->name, load.tenant.num_waiting_tokens, num_prompt_tokens, tenant_limit));
  }
  const bool is_full = load.num_waiting > 0 &&
                       num_prompt_tokens > options.max_queued_tokens - load.num_waiting_tokens;
  const auto tenant_tokens =
      static_cast<double>(load.tenant.num_waiting_tokens + num_prompt_tokens);
  if (!is_full ||
      tenant_tokens <= load.tenant.share * static_cast<double>(options.max_queued_tokens)) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      absl::StrFormat("the queue is full: %d prompt tokens wait and %d would join them, limit %d",
                      load.num_waiting_tokens, num_prompt_tokens, options.max_queued_tokens));
}

}  // namespace

absl::Status CheckAdmission(const SchedulerOptions& options, const QueueLoad& load,
                            const Request& request, TimePoint now) {
  GATEHOUSE_RETURN_IF_ERROR(CheckQueueOpen(options, load));
  if (now >= request.deadline) {
    return absl::DeadlineExceededError(
        absl::StrFormat("the deadline passed %.3f s before the request could be queued",
                        ToSeconds(now - request.deadline)));
  }
  return CheckTokens(options, load, request);
}

absl::Status CheckQueueOpen(const SchedulerOptions& options, const QueueLoad& load) {
  if (load.draining) {
    return absl::UnavailableError("the server is draining and takes no new requests");
  }
  return CheckRequests(options, load);
}

}  // namespace gatehouse
