// How many prompt tokens a step may carry, learned from how long steps took, so that a prefill
// chunk adds no more than max_step_ms to running streams. A value: one thread at a time.
//
// The model: a step costs what its decode rows cost (average of steps with decodes only) plus a
// price for each prefill token (average). Both follow the machine with weight kWeight a step. A
// wrong guess changes the size of chunks, never a result.
#pragma once

#include <cstdint>

#include "engine/engine_config.h"
#include "kernels/base/clock.h"

namespace gatehouse {

class PrefillBudget {
 public:
  static constexpr int32_t kFirstTokens = 64;  // before the first measurement

  explicit PrefillBudget(double max_step_ms) : max_step_ms_(max_step_ms) {}

  void Learn(int32_t num_prefill_tokens, int32_t num_decode_tokens, Duration duration);
  int32_t max_tokens() const;  // >= kMinPrefillTokens

 private:
  static constexpr double kWeight = 0.3;

  const double max_step_ms_;
  double decode_step_ms_ = -1;  // < 0: not measured yet
  double prefill_token_ms_ = -1;
};

}  // namespace gatehouse
