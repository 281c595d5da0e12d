#include "server/health.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace gatehouse {

std::string ReadyJson(const HealthReport& report) {
  // Reasons are our own text: nothing in them needs escaping.
  return absl::StrFormat("{\"ready\":%s,\"state\":\"%s\",\"reasons\":[%s]}\n",
                         report.serving() ? "true" : "false", EngineStateName(report.state),
                         report.reason.empty() ? "" : "\"" + report.reason + "\"");
}

HealthReport ProgressJudge::Judge(const EngineStatus& status, TimePoint now) {
  if (status.has_work && !had_work_) work_since_ = now;
  had_work_ = status.has_work;
  const Duration without_step = now - std::max(status.last_step, work_since_);
  if (status.has_work && without_step > stall_time_) {
    return {.state = EngineState::kStalled,
            .reason = absl::StrFormat("no step has ended for %.0f s with work to do",
                                      ToSeconds(without_step))};
  }
  if (status.draining) {
    return {.state = EngineState::kDraining, .reason = "draining: no new requests are taken"};
  }
  return {.state = EngineState::kServing, .reason = ""};
}

}  // namespace gatehouse
