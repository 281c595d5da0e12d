#include "engine/rank.h"

#include <algorithm>

#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {

absl::StatusOr<RankResult> Rank::Run(const RankSlice& slice, const StepRouting& routing,
                                     Dispatcher& dispatcher,
                                     std::span<const RowSampling> sampling) const {
  GATEHOUSE_CHECK(sampling.size() == slice.logit_rows.size())
      << sampling.size() << " for " << slice.logit_rows.size() << " rows";
  RankResult result{.row_failed = std::vector<uint8_t>(slice.token_ids.size(), 0),
                    .samples = std::vector<RowSample>(slice.logit_rows.size())};
  const BatchLayout layout = slice.layout();
  backend().BeginStep(layout);
  absl::StatusOr<std::vector<RoutePlan>> routes =
      parts_.transformer->Forward({.layout = layout,
                                   .routing = routing,
                                   .cache = parts_.cache,
                                   .row_failed = result.row_failed},
                                  dispatcher);
  if (routes.ok()) SampleRows(slice, sampling, result.samples);
  GATEHOUSE_RETURN_IF_ERROR(backend().Finish());
  GATEHOUSE_ASSIGN_OR_RETURN(result.routes, std::move(routes));
  return result;
}

// In slabs of max_logit_rows: a long prompt whose every log-probability is wanted must not need
// [num_rows, vocab] floats.
void Rank::SampleRows(const RankSlice& slice, std::span<const RowSampling> sampling,
                      std::span<RowSample> samples) const {
  const auto slab = static_cast<size_t>(parts_.transformer->shape().max_logit_rows);
  const std::span<const int32_t> rows = slice.logit_rows;
  for (size_t first = 0; first < rows.size(); first += slab) {
    const size_t count = std::min(slab, rows.size() - first);
    backend().Sample({.logits = parts_.transformer->Logits(rows.subspan(first, count)),
                      .rows = sampling.subspan(first, count),
                      .samples = samples.subspan(first, count)});
  }
}

}  // namespace gatehouse
