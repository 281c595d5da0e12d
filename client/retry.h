// When a failed call is made again. Part of the library, not of its interface.
#pragma once

#include <chrono>
#include <optional>

#include "absl/status/status.h"
#include "client/client_options.h"

namespace gatehouse {

// How long to wait before the call that ended with `status` in its `num_tries`-th try is made
// again; nothing: it is not. `jitter` [0, 1) is the caller's random number. Pure.
std::optional<std::chrono::milliseconds> DelayBeforeRetry(const RetryPolicy& policy,
                                                          const absl::Status& status, int num_tries,
                                                          double jitter);

// The tries of one call: counts them and knows their common deadline. One thread at a time.
class Tries {
 public:
  Tries(const RetryPolicy& policy, const CallOptions& options);

  // Nothing when the call had no timeout.
  std::optional<std::chrono::system_clock::time_point> deadline() const { return deadline_; }

  // As DelayBeforeRetry for one try more, and nothing if the deadline would pass meanwhile. Tells
  // the caller's on_retry of a wait.
  std::optional<std::chrono::milliseconds> Next(const absl::Status& status);

 private:
  const RetryPolicy policy_;
  const std::function<void(const absl::Status&, std::chrono::milliseconds)> on_retry_;
  std::optional<std::chrono::system_clock::time_point> deadline_;
  int num_tries_ = 0;
};

}  // namespace gatehouse
