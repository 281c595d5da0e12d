// One rank of this process: a back end with its threads, the cache of its sequences, and its part
// in the exchange of rows; the weights are the process's. Carries out its slice of a step. Owned by
// the worker; one thread at a time calls it, ranks side by side.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/cache/kv_cache.h"
#include "engine/model/transformer.h"
#include "engine/moe/dispatcher.h"
#include "engine/moe/exchange_call.h"
#include "engine/moe/route_plan.h"
#include "engine/moe/step_routing.h"
#include "engine/rank_slice.h"
#include "kernels/backend.h"

namespace gatehouse {

// `backend` made all in the two below, and is destroyed after them.
struct RankParts {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Transformer> transformer;
  KvCache cache;
};

struct RankResult {
  std::vector<uint8_t> row_failed;  // [own rows]
  std::vector<RowSample> samples;   // one for each of slice.logit_rows
  std::vector<RoutePlan> routes;    // one a MoE layer, of all rows of the step
  RankExchanges exchanges;          // empty: there is one rank
};

class Rank {
 public:
  explicit Rank(RankParts parts) : parts_(std::move(parts)) {}

  // `sampling` has one entry for each of slice.logit_rows.
  absl::StatusOr<RankResult> Run(const RankSlice& slice, const StepRouting& routing,
                                 Dispatcher& dispatcher,
                                 std::span<const RowSampling> sampling) const;
  Backend& backend() const { return *parts_.backend; }

 private:
  void SampleRows(const RankSlice& slice, std::span<const RowSampling> sampling,
                  std::span<RowSample> samples) const;

  const RankParts parts_;
};

}  // namespace gatehouse
