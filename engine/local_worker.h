// The worker of a deployment with one rank: the whole model and the whole cache in this process.
#pragma once

#include <memory>
#include <utility>

#include "engine/cache/kv_cache.h"
#include "engine/model/transformer.h"
#include "engine/route_recorder.h"
#include "engine/worker.h"
#include "kernels/backend.h"

namespace gatehouse {

class LocalWorker final : public Worker {
 public:
  // `backend` made everything in `transformer` and `cache`, and outlives them: members are
  // destroyed in reverse order.
  LocalWorker(std::unique_ptr<Backend> backend, std::unique_ptr<Transformer> transformer,
              KvCache cache, ModelCost cost, std::unique_ptr<RouteRecorder> recorder)
      : backend_(std::move(backend)),
        transformer_(std::move(transformer)),
        cache_(std::move(cache)),
        cost_(std::move(cost)),
        recorder_(std::move(recorder)) {}

  absl::StatusOr<StepResult> Run(const StepPlan& plan,
                                 std::span<const RowSampling> sampling) override;

 private:
  void SampleRows(const StepPlan& plan, std::span<const RowSampling> sampling,
                  std::span<RowSample> samples);

  const std::unique_ptr<Backend> backend_;
  const std::unique_ptr<Transformer> transformer_;
  const KvCache cache_;
  const ModelCost cost_;
  const std::unique_ptr<RouteRecorder> recorder_;  // null: nothing is recorded
};

}  // namespace gatehouse
