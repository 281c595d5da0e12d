#include "engine/local_worker.h"

#include <algorithm>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {

absl::StatusOr<StepResult> LocalWorker::Run(const StepPlan& plan,
                                            std::span<const RowSampling> sampling) {
  GATEHOUSE_CHECK(sampling.size() == plan.logit_rows.size())
      << sampling.size() << " for " << plan.logit_rows.size() << " rows";
  StepResult result{.samples = std::vector<RowSample>(plan.logit_rows.size()),
                    .row_failed = std::vector<uint8_t>(plan.num_rows(), 0)};
  const BatchLayout layout = plan.layout();
  backend_->BeginStep(layout);
  const bool records = recorder_ != nullptr && !plan.is_replay && recorder_->BeginStep(plan);
  const StepRouting routing{.tokens = plan.routed_tokens,
                            .policies = plan.policies,
                            .observer = records ? recorder_.get() : nullptr,
                            .num_observed_ranks = records ? recorder_->num_ranked() : 0};
  result.routes = transformer_->Forward(layout, routing, cache_, result.row_failed);
  if (records) recorder_->EndStep();
  SampleRows(plan, sampling, result.samples);
  GATEHOUSE_RETURN_IF_ERROR(backend_->Finish());
  result.cost = CostOfStep(cost_, {.sequences = plan.spans,
                                   .num_logit_rows = static_cast<int64_t>(plan.logit_rows.size()),
                                   .routes = result.routes});
  return result;
}

// In slabs of max_logit_rows: a long prompt whose every log-probability is wanted must not need
// [num_rows, vocab] floats.
void LocalWorker::SampleRows(const StepPlan& plan, std::span<const RowSampling> sampling,
                             std::span<RowSample> samples) {
  const auto slab = static_cast<size_t>(transformer_->shape().max_logit_rows);
  std::vector<int32_t> row_ids;
  for (size_t first = 0; first < sampling.size(); first += slab) {
    const size_t count = std::min(slab, sampling.size() - first);
    row_ids.clear();
    for (size_t i = first; i < first + count; ++i) row_ids.push_back(plan.logit_rows[i].row);
    const MatrixView<const float> logits = transformer_->Logits(row_ids);
    backend_->Sample({.logits = logits,
                      .rows = sampling.subspan(first, count),
                      .samples = samples.subspan(first, count)});
  }
}

}  // namespace gatehouse
