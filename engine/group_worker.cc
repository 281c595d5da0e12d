#include "engine/group_worker.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

// A group ends before it is known who has died: a connection that breaks is seen at once, a host
// that is silent within two seconds. A new group that waits for the dead would take longer.
constexpr auto kVerdict = std::chrono::milliseconds(2500);
constexpr auto kVerdictPoll = std::chrono::milliseconds(5);
// Each time a rank may be lost meanwhile.
constexpr int kMaxJoins = 8;

// What others than the first rank tell the observer of: all ranks see all rows, one tells.
class SilentObserver final : public RouteObserver {
 public:
  void OnLayer(int, const GateScores&, const RouteDecision&) override {}
};

// From ranks to the order of the plan. An error that is not a loss is the step's: what others say
// of it is that they have lost somebody.
absl::StatusOr<StepResult> Merge(const StepRows& rows, std::span<const RankSlice> slices,
                                 std::span<const int> members,
                                 std::vector<absl::StatusOr<RankResult>> results,
                                 size_t num_samples) {
  absl::Status status;
  for (const int r : members) {
    const bool is_cause = status.ok() || absl::IsUnavailable(status);
    if (!results[r].ok() && is_cause) status = results[r].status();
  }
  GATEHOUSE_RETURN_IF_ERROR(status);
  StepResult merged{.samples = std::vector<RowSample>(num_samples),
                    .row_failed = std::vector<uint8_t>(rows.num_rows(), 0)};
  merged.routes = std::move(results[0]->routes);
  for (const int r : members) {
    RankResult& result = *results[r];
    const auto own_rows = rows.rows_of(r);
    for (size_t i = 0; i < own_rows.size(); ++i) {
      merged.row_failed[own_rows[i]] = result.row_failed[i];
    }
    for (size_t i = 0; i < result.samples.size(); ++i) {
      merged.samples[slices[r].logit_ids[i]] = std::move(result.samples[i]);
    }
  }
  if (results.size() == 1) return merged;
  for (auto& result : results) {
    merged.exchanges.push_back(result.ok() ? std::move(result->exchanges) : RankExchanges{});
  }
  return merged;
}

}  // namespace

GroupWorker::GroupWorker(GroupWorkerParts parts)
    : ranks_(std::move(parts.ranks)),
      cost_(std::move(parts.cost)),
      recorder_(std::move(parts.recorder)),
      placements_(std::move(parts.placements)),
      membership_{.num_ranks = num_ranks()},
      num_returns_(num_ranks()),
      threads_(num_ranks()) {
  GATEHOUSE_CHECK(!ranks_.empty());
  if (num_ranks() == 1) membership_.members = {0};
}

void GroupWorker::Place(int moe_layer_idx, const ExpertPlacement& placement) {
  placements_[moe_layer_idx] = placement;
  for (const int r : membership_.members) ranks_[r]->Place(moe_layer_idx, placement);
}

std::vector<int> GroupWorker::RanksUp() const {
  std::vector<int> up;
  for (int r = 0; r < num_ranks(); ++r) {
    if (ranks_[r]->is_up()) up.push_back(r);
  }
  return up;
}

bool GroupWorker::needs_regroup() const {
  if (!broken_.ok() || membership_.members != RanksUp()) return true;
  return num_returns_ != NumReturns();
}

std::vector<int64_t> GroupWorker::NumReturns() const {
  std::vector<int64_t> num_returns;
  for (const auto& rank : ranks_) num_returns.push_back(rank->num_returns());
  return num_returns;
}

// Returns are counted before ranks join: one that goes and comes back while others still join is
// seen at the next look, and no step runs before that.
absl::StatusOr<Regrouped> GroupWorker::Regroup() {
  for (int i = 0; i < kMaxJoins; ++i) {
    if (absl::IsUnavailable(broken_)) WaitForVerdict();
    std::vector<int64_t> num_returns = NumReturns();
    Membership next{.epoch = ++last_epoch_, .num_ranks = num_ranks(), .members = RanksUp()};
    broken_ = JoinAll(next);
    if (!broken_.ok()) continue;
    Regrouped regrouped{.membership = next, .emptied = {}};
    for (int r = 0; r < num_ranks(); ++r) {
      const bool has_moved = membership_.has(r) != next.has(r);
      if (has_moved || num_returns_[r] != num_returns[r]) regrouped.emptied.push_back(r);
    }
    membership_ = std::move(next);
    num_returns_ = std::move(num_returns);
    for (size_t l = 0; l < placements_.size(); ++l) Place(static_cast<int>(l), placements_[l]);
    return regrouped;
  }
  return broken_;
}

void GroupWorker::WaitForVerdict() const {
  const auto limit = std::chrono::steady_clock::now() + kVerdict;
  while (membership_.members == RanksUp() && std::chrono::steady_clock::now() < limit) {
    std::this_thread::sleep_for(kVerdictPoll);
  }
}

absl::Status GroupWorker::JoinAll(const Membership& membership) {
  std::vector<absl::Status> joined(num_ranks());
  threads_.Run([&](int r) {
    if (membership.has(r)) joined[r] = ranks_[r]->Join(membership);
  });
  for (const absl::Status& status : joined) GATEHOUSE_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

absl::StatusOr<StepResult> GroupWorker::Run(const StepPlan& plan,
                                            std::span<const RowSampling> sampling) {
  GATEHOUSE_CHECK(sampling.size() == plan.logit_rows.size())
      << sampling.size() << " for " << plan.logit_rows.size() << " rows";
  if (needs_regroup()) return absl::UnavailableError("the ranks have to form a group first");
  const StepRows rows = RowsOf(plan, num_ranks());
  const std::vector<RankSlice> slices = SliceByRank(plan, rows);
  absl::StatusOr<StepResult> result =
      Merge(rows, slices, membership_.members, RunRanks(plan, rows, slices, sampling),
            plan.logit_rows.size());
  if (num_ranks() > 1) broken_ = result.status();
  GATEHOUSE_RETURN_IF_ERROR(result.status());
  result->cost = CostOfStep(cost_, {.sequences = plan.spans,
                                    .num_logit_rows = static_cast<int64_t>(plan.logit_rows.size()),
                                    .routes = result->routes});
  return result;
}

std::vector<absl::StatusOr<RankResult>> GroupWorker::RunRanks(
    const StepPlan& plan, const StepRows& rows, std::span<const RankSlice> slices,
    std::span<const RowSampling> sampling) {
  const bool records = recorder_ != nullptr && !plan.is_replay && recorder_->BeginStep(plan);
  const int num_observed = records ? recorder_->num_ranked() : 0;
  std::vector<absl::StatusOr<RankResult>> results(num_ranks());
  threads_.Run([&](int r) {
    if (!membership_.has(r)) return;
    SilentObserver silent;
    RouteObserver* const observer = r == 0 ? static_cast<RouteObserver*>(recorder_.get()) : &silent;
    std::vector<RowSampling> own_sampling;
    for (const int32_t id : slices[r].logit_ids) own_sampling.push_back(sampling[id]);
    results[r] = ranks_[r]->Run({.rows = &rows,
                                 .routing = {.tokens = plan.routed_tokens,
                                             .policies = plan.policies,
                                             .observer = records ? observer : nullptr,
                                             .num_observed_ranks = num_observed},
                                 .slice = &slices[r],
                                 .sampling = own_sampling});
    if (!results[r].ok()) TellOthers(r);
  });
  if (records && results[0].ok()) recorder_->EndStep();
  return results;
}

// The others wait for a rank that has left the step: they need not until the deadline. Who is the
// cause, if it is known, is whom they hear of.
void GroupWorker::TellOthers(int failed_rank) {
  const auto down = std::find_if(membership_.members.begin(), membership_.members.end(),
                                 [&](int r) { return !ranks_[r]->is_up(); });
  const int lost = down == membership_.members.end() ? failed_rank : *down;
  for (const int r : membership_.members) {
    if (r != failed_rank) ranks_[r]->Lose(lost);
  }
}

}  // namespace gatehouse
