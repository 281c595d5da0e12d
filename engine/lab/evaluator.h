// A model run over windows of tokens without a server: the forward pass with its own cache, all
// windows of a batch in one step, and the logits of every row. One thread uses it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/loaded_model.h"
#include "engine/moe/pinned_policy.h"
#include "engine/moe/step_routing.h"

namespace gatehouse {

struct EvaluatorOptions {
  std::string model_dir;
  int num_threads = 1;
  int32_t window = 256;                 // rows of one sequence
  int32_t batch_windows = 16;           // sequences of one step; together they are one domain
  std::optional<WeightFormat> weights;  // of all matrices; absent: as stored
};

class Evaluator {
 public:
  // As LoadModel; INVALID_ARGUMENT where the window is longer than the model's context.
  static absl::StatusOr<std::unique_ptr<Evaluator>> Create(const EvaluatorOptions& options);

  const EvaluatorOptions& options() const { return options_; }
  const LoadedParts& parts() const { return parts_; }

  // One step from empty caches. `windows` are those of a batch, [num_windows][window] ids, at most
  // batch_windows. Null policy: exact. FAILED_PRECONDITION if a row is not finite.
  absl::Status Forward(const std::vector<std::span<const int32_t>>& windows,
                       const PinnedPolicy* policy, RouteObserver* observer, int num_observed_ranks);
  // Of the rows of the last Forward, in order; `logits` [vocab] is valid during the call.
  using VisitLogits = std::function<void(int32_t row, std::span<const float> logits)>;
  void ForEachRow(const VisitLogits& visit);

 private:
  Evaluator(const EvaluatorOptions& options, LoadedParts parts)
      : options_(options), parts_(std::move(parts)) {}

  EvaluatorOptions options_;
  LoadedParts parts_;
  int32_t num_rows_ = 0;  // of the last Forward
};

}  // namespace gatehouse
