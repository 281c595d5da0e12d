#include "engine/scheduler/prefill_budget.h"

#include <algorithm>
#include <limits>

namespace gatehouse {
namespace {

void Average(double sample, double weight, double& average) {
  average = average < 0 ? sample : average + weight * (sample - average);
}

}  // namespace

void PrefillBudget::Learn(int32_t num_prefill_tokens, int32_t num_decode_tokens,
                          Duration duration) {
  const double step_ms = ToSeconds(duration) * 1e3;
  if (num_prefill_tokens == 0) {
    Average(step_ms, kWeight, decode_step_ms_);
    return;
  }
  const double decode_ms = num_decode_tokens > 0 ? std::max(decode_step_ms_, 0.0) : 0.0;
  const double added_ms = std::max(step_ms - decode_ms, 0.0);
  Average(added_ms / num_prefill_tokens, kWeight, prefill_token_ms_);
}

int32_t PrefillBudget::max_tokens() const {
  if (prefill_token_ms_ < 0) return kFirstTokens;
  const double tokens = max_step_ms_ / std::max(prefill_token_ms_, 1e-9);
  if (tokens >= std::numeric_limits<int32_t>::max()) return std::numeric_limits<int32_t>::max();
  return std::max(static_cast<int32_t>(tokens), kMinPrefillTokens);
}

}  // namespace gatehouse
