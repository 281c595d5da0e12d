#include "server/heartbeat.h"

#include <algorithm>
#include <utility>

namespace gatehouse {

Duration ExchangeDeadline(const RankSettings& settings) {
  constexpr double kSecondsPerPair = 4 * 4096 / 10e9;  // of a row and a position
  const double layer = kSecondsPerPair * settings.max_step_tokens * settings.max_context;
  const std::chrono::duration<double> deadline(std::clamp(20 * layer, 10.0, 3600.0));
  return std::chrono::duration_cast<Duration>(deadline);
}

Heartbeat::Heartbeat(std::function<void(bool)> beat)
    : beat_(std::move(beat)), thread_([this] { Run(); }) {}

Heartbeat::~Heartbeat() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

void Heartbeat::Run() {
  TimePoint due = std::chrono::steady_clock::now();
  while (true) {
    const TimePoint now = std::chrono::steady_clock::now();
    beat_(now > due + kHeartbeatPeriod);
    due = now + kHeartbeatPeriod;
    const MutexLock lock(mutex_);
    while (!stopping_) {
      const Duration left = due - std::chrono::steady_clock::now();
      if (left <= Duration::zero()) break;
      changed_.WaitFor(mutex_, left);
    }
    if (stopping_) return;
  }
}

}  // namespace gatehouse
