// What bounds and narrow weights cost on given tokens: loss, divergence from exact routing with the
// weights as stored, drops and loads of many policies, all on the same batches.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/lab/eval_tokens.h"
#include "engine/lab/evaluator.h"
#include "engine/lab/route_meter.h"
#include "engine/moe/pinned_policy.h"

namespace gatehouse {

struct EvalCase {
  std::string name;
  double factor = 0;  // capacity factor; inf: none
  bool exact = false;
  PinnedPolicy policy;  // unless exact
  // Not null: the model in another format of weights, routed exactly, instead of a policy. The
  // caller's.
  Evaluator* narrow = nullptr;
};

struct EvalResult {
  std::string name;
  double factor = 0;
  int64_t num_tokens = 0;
  double loss = 0;                // nats/token
  double loss_difference = 0;     // less exact's, on the same tokens
  double loss_difference_se = 0;  // standard error over the batches; 0: one batch
  double kl = 0;  // nats/token, sum of exact's p times log(exact's p / p), on num_kl_rows rows
  int64_t num_kl_rows = 0;
  RouteTotals totals;
  double seconds = 0;
};

struct EvalRunOptions {
  int64_t max_windows = 0;                // 0: all
  int64_t kl_bytes = int64_t{256} << 20;  // memory for exact's logits of a batch, to compare with
  ExpertPlacement exact_placement;        // devices that exact routing's step time is of
};

// The first result is exact routing's; then one for each case, in order. `progress` is told of
// every batch done.
absl::StatusOr<std::vector<EvalResult>> RunEval(Evaluator& evaluator, const EvalTokens& tokens,
                                                const std::vector<EvalCase>& cases,
                                                const EvalRunOptions& options,
                                                const std::function<void(int64_t)>& progress);

// Of the target tokens' text.
double BytesPerToken(const EvalTokens& tokens, int64_t num_windows, const Tokenizer& tokenizer);

}  // namespace gatehouse
