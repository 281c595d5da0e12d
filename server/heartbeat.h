// The pulse between the processes of a deployment: a thread that does nothing else, so that no step
// holds it up, and the times that both ends agree on.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>

#include "engine/remote_ranks.h"
#include "kernels/base/clock.h"
#include "kernels/base/mutex.h"

namespace gatehouse {

inline constexpr int32_t kWorkerProtocol = 1;  // of worker.proto
inline constexpr Duration kHeartbeatPeriod = std::chrono::milliseconds(500);
inline constexpr Duration kSilence = std::chrono::seconds(2);  // and the other end is lost
inline constexpr Duration kConnectDeadline = std::chrono::seconds(10);

// What one exchange of rows may wait: for the slowest of the others, which may still attend over a
// long context. Twenty times that, by a machine of 10 GFlop/s with 4096 channels; at least 10 s.
// Who dies is known far sooner, by heartbeats.
Duration ExchangeDeadline(const RankSettings& settings);

// Calls `beat` each period. `was_held_up` says that this process itself did not run for a while (it
// was stopped, or its machine slept): what others said meanwhile has not been read yet.
class Heartbeat {
 public:
  explicit Heartbeat(std::function<void(bool was_held_up)> beat);
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

 private:
  void Run() GATEHOUSE_EXCLUDES(mutex_);

  const std::function<void(bool)> beat_;
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace gatehouse
