#include "server/rate_window.h"

namespace gatehouse {

void RateWindow::Add(TimePoint now, const EngineTotals& totals) {
  const MutexLock lock(mutex_);
  samples_.push_back({now, totals});
  while (now - samples_.front().time > kWindow) samples_.pop_front();
}

RecentWork RateWindow::Read() const {
  const MutexLock lock(mutex_);
  if (samples_.empty()) return {};
  const EngineTotals& old = samples_.front().totals;
  RecentWork recent{.window_seconds = ToSeconds(samples_.back().time - samples_.front().time),
                    .work = samples_.back().totals};
  recent.work.num_prompt_tokens -= old.num_prompt_tokens;
  recent.work.num_cached_prompt_tokens -= old.num_cached_prompt_tokens;
  recent.work.num_generated_tokens -= old.num_generated_tokens;
  recent.work.num_steps -= old.num_steps;
  recent.work.num_ended_requests -= old.num_ended_requests;
  recent.work.num_preemptions -= old.num_preemptions;
  recent.work.weight_bytes -= old.weight_bytes;
  recent.work.step_seconds -= old.step_seconds;
  return recent;
}

}  // namespace gatehouse
