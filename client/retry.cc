#include "client/retry.h"

#include <algorithm>
#include <random>

#include "client/rpc_error.h"

namespace gatehouse {
namespace {

using std::chrono::milliseconds;

milliseconds Scaled(milliseconds wait, double factor) {
  return milliseconds(static_cast<int64_t>(static_cast<double>(wait.count()) * factor));
}

// first_wait, doubled with every try, up to max_wait.
milliseconds Backoff(const RetryPolicy& policy, int num_tries) {
  milliseconds wait = policy.first_wait;
  for (int i = 1; i < num_tries && wait < policy.max_wait; ++i) wait *= 2;
  return std::min(wait, policy.max_wait);
}

}  // namespace

std::optional<milliseconds> DelayBeforeRetry(const RetryPolicy& policy, const absl::Status& status,
                                             int num_tries, double jitter) {
  if (num_tries >= policy.max_tries) return std::nullopt;
  const bool unavailable = absl::IsUnavailable(status);
  if (!unavailable && !absl::IsResourceExhausted(status)) return std::nullopt;
  const milliseconds backoff = Backoff(policy, num_tries);
  const std::optional<double> asked_seconds = DecodeError(status).retry_delay_seconds;
  if (!asked_seconds.has_value()) {
    // RESOURCE_EXHAUSTED without RetryInfo is a message that is too large, or a reader too slow:
    // the same again would end the same.
    if (!unavailable) return std::nullopt;
    return Scaled(backoff, 1 - jitter / 2);
  }
  const double max_seconds = std::chrono::duration<double>(policy.max_server_wait).count();
  if (!(*asked_seconds <= max_seconds)) return std::nullopt;
  const auto asked = milliseconds(static_cast<int64_t>(std::max(0.0, *asked_seconds) * 1000));
  return asked + Scaled(backoff, jitter);
}

Tries::Tries(const RetryPolicy& policy, const CallOptions& options)
    : policy_(policy), on_retry_(options.on_retry) {
  if (options.timeout.count() > 0) {
    deadline_ = std::chrono::system_clock::now() + options.timeout;
  }
}

std::optional<milliseconds> Tries::Next(const absl::Status& status) {
  ++num_tries_;
  std::random_device random;
  const double jitter = std::uniform_real_distribution<double>(0, 1)(random);
  const auto delay = DelayBeforeRetry(policy_, status, num_tries_, jitter);
  if (!delay.has_value()) return std::nullopt;
  if (deadline_.has_value() && std::chrono::system_clock::now() + *delay >= *deadline_) {
    return std::nullopt;
  }
  if (on_retry_ != nullptr) on_retry_(status, *delay);
  return delay;
}

}  // namespace gatehouse
