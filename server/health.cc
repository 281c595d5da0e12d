#include "server/health.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"

namespace gatehouse {

std::string ReadyJson(const HealthReport& report) {
  // Reasons are our own text: nothing in them needs escaping.
  return absl::StrFormat("{\"ready\":%s,\"state\":\"%s\",\"reasons\":[%s]}\n",
                         report.serving() ? "true" : "false", EngineStateName(report.state),
                         report.reason.empty() ? "" : "\"" + report.reason + "\"");
}

HealthReport ServingState::health() const {
  const MutexLock lock(mutex_);
  return health_;
}

HealthReport ServingState::Exchange(HealthReport report) {
  const MutexLock lock(mutex_);
  return std::exchange(health_, std::move(report));
}

Duration RetryAfter(const ServingState& state, const std::string& tenant) {
  const Engine* engine = state.engine();
  return engine == nullptr ? std::chrono::seconds(1) : engine->RetryAfter(tenant);
}

HealthReport ProgressJudge::Judge(const EngineStatus& status, double longest_step_seconds,
                                  TimePoint now) {
  if (status.has_work && !had_work_) work_since_ = now;
  had_work_ = status.has_work;
  const double longest =
      longest_step_seconds > 0 ? longest_step_seconds : limits_.first_step_seconds;
  const double limit = std::max(limits_.stall_seconds, limits_.stall_step_factor * longest);
  const double without_step = ToSeconds(now - std::max(status.last_step, work_since_));
  if (status.has_work && without_step > limit) {
    return {
        .state = EngineState::kStalled,
        .reason = absl::StrFormat("no step has ended for %.1f s with work to do", without_step)};
  }
  if (status.draining) {
    return {.state = EngineState::kDraining, .reason = "draining: no new requests are taken"};
  }
  return {.state = EngineState::kServing, .reason = ""};
}

}  // namespace gatehouse
