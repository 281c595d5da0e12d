#include "engine/local_worker.h"

#include <algorithm>
#include <chrono>

#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

// A rank without rows waits while another attends over a long context: a thread that is alive is
// late, not lost.
constexpr Duration kDeadline = std::chrono::minutes(10);

// What others than the first rank tell the observer of: all ranks see all rows, one tells.
class SilentObserver final : public RouteObserver {
 public:
  void OnLayer(int, const GateScores&, const RouteDecision&) override {}
};

// From ranks to the order of the plan. The first error is the step's.
absl::StatusOr<StepResult> Merge(const StepRows& rows, std::span<const RankSlice> slices,
                                 std::vector<absl::StatusOr<RankResult>> results,
                                 size_t num_samples) {
  StepResult merged{.samples = std::vector<RowSample>(num_samples),
                    .row_failed = std::vector<uint8_t>(rows.num_rows(), 0)};
  for (size_t r = 0; r < results.size(); ++r) {
    GATEHOUSE_ASSIGN_OR_RETURN(RankResult result, std::move(results[r]));
    const auto own_rows = rows.rows_of(static_cast<int>(r));
    for (size_t i = 0; i < own_rows.size(); ++i) {
      merged.row_failed[own_rows[i]] = result.row_failed[i];
    }
    for (size_t i = 0; i < result.samples.size(); ++i) {
      merged.samples[slices[r].logit_ids[i]] = std::move(result.samples[i]);
    }
    if (r == 0) merged.routes = std::move(result.routes);
  }
  return merged;
}

}  // namespace

LocalWorker::LocalWorker(LocalWorkerParts parts)
    : cost_(std::move(parts.cost)),
      recorder_(std::move(parts.recorder)),
      placements_(std::move(parts.placements)),
      threads_(static_cast<int>(parts.ranks.size())),
      local_dispatcher_(*parts.ranks.at(0).backend) {
  for (RankParts& rank : parts.ranks) ranks_.push_back(std::make_unique<Rank>(std::move(rank)));
  if (num_ranks() > 1) FormGroup();
}

void LocalWorker::FormGroup() {
  rank_dispatchers_.clear();
  group_ = std::make_unique<InProcessGroup>(
      InProcessOptions{.num_ranks = num_ranks(), .epoch = epoch_++, .deadline = kDeadline});
  for (int r = 0; r < num_ranks(); ++r) {
    rank_dispatchers_.emplace_back(ranks_[r]->backend(), group_->rank(r));
  }
}

absl::StatusOr<StepResult> LocalWorker::Run(const StepPlan& plan,
                                            std::span<const RowSampling> sampling) {
  GATEHOUSE_CHECK(sampling.size() == plan.logit_rows.size())
      << sampling.size() << " for " << plan.logit_rows.size() << " rows";
  const StepRows rows = RowsOf(plan, num_ranks());
  const std::vector<RankSlice> slices = SliceByRank(plan, rows);
  GATEHOUSE_ASSIGN_OR_RETURN(
      StepResult result,
      Merge(rows, slices, RunRanks(plan, rows, slices, sampling), plan.logit_rows.size()));
  result.cost = CostOfStep(cost_, {.sequences = plan.spans,
                                   .num_logit_rows = static_cast<int64_t>(plan.logit_rows.size()),
                                   .routes = result.routes});
  for (RankDispatcher& dispatcher : rank_dispatchers_) {
    result.exchanges.push_back(dispatcher.TakeExchanges());
  }
  return result;
}

std::vector<absl::StatusOr<RankResult>> LocalWorker::RunRanks(
    const StepPlan& plan, const StepRows& rows, std::span<const RankSlice> slices,
    std::span<const RowSampling> sampling) {
  const bool records = recorder_ != nullptr && !plan.is_replay && recorder_->BeginStep(plan);
  const int num_observed = records ? recorder_->num_ranked() : 0;
  std::vector<absl::StatusOr<RankResult>> results(num_ranks());
  threads_.Run([&](int r) {
    SilentObserver silent;
    RouteObserver* const observer = r == 0 ? static_cast<RouteObserver*>(recorder_.get()) : &silent;
    const StepRouting routing{.tokens = plan.routed_tokens,
                              .policies = plan.policies,
                              .observer = records ? observer : nullptr,
                              .num_observed_ranks = num_observed};
    std::vector<RowSampling> own_sampling;
    for (const int32_t id : slices[r].logit_ids) own_sampling.push_back(sampling[id]);
    Dispatcher* dispatcher = &local_dispatcher_;
    if (num_ranks() > 1) {
      rank_dispatchers_[r].BeginStep(rows, placements_);
      dispatcher = &rank_dispatchers_[r];
    } else {
      local_dispatcher_.BeginStep(plan.num_rows());
    }
    results[r] = ranks_[r]->Run(slices[r], routing, *dispatcher, own_sampling);
  });
  if (records && results[0].ok()) recorder_->EndStep();
  const bool all_ok =
      std::all_of(results.begin(), results.end(), [](const auto& result) { return result.ok(); });
  if (!all_ok && num_ranks() > 1) FormGroup();
  return results;
}

}  // namespace gatehouse
