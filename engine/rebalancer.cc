#include "engine/rebalancer.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

// More than chance makes of an even load, and less than anybody would want to keep.
constexpr double kWorseFactor = 1.02;

const char* ReasonOf(RebalanceVerdict verdict) {
  switch (verdict) {
    case RebalanceVerdict::kTooFewPairs:
      return "too few tokens were computed to plan by";
    case RebalanceVerdict::kTooLittleGain:
      return "it would gain too little";
    case RebalanceVerdict::kCostsTooMuch:
      return "the copies would cost more than they gain";
    case RebalanceVerdict::kWorthIt:
      break;
  }
  return "";
}

double Sum(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

Rebalancer::Rebalancer(std::vector<ExpertPlacement> placements)
    : wanted_(std::move(placements)), placements_(wanted_) {
  if (placements_.empty()) return;
  auto forecast =
      LoadForecast::Make(static_cast<int>(placements_.size()), placements_.front().num_experts());
  GATEHOUSE_CHECK(forecast.ok()) << forecast.status().ToString();
  forecast_ = *std::move(forecast);
}

absl::Status Rebalancer::Request(const RebalanceOptions& options) {
  if (!forecast_) return absl::FailedPreconditionError("the model has no experts to move");
  if (num_ranks() == 1) {
    return absl::FailedPreconditionError("the server has one rank: experts have nowhere to move");
  }
  if (!lost_ranks_.empty()) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "rank %d is lost: experts can be moved when it is back", lost_ranks_.front()));
  }
  if (has_work()) {
    return absl::FailedPreconditionError(absl::StrFormat("rebalance %d is under way", status_.id));
  }
  const int64_t most = int64_t{placements_.front().num_experts()} * (num_ranks() - 1);
  if (options.num_replicas < 0 || options.num_replicas > most) {
    return absl::InvalidArgumentError(
        absl::StrFormat("replicas: got %d, expected 0 to %d, all experts on all ranks",
                        options.num_replicas, most));
  }
  options_ = options;
  status_ = {.state = RebalanceState::kPlanned, .id = status_.id + 1};
  next_layer_ = 0;
  changes_.clear();
  moves_back_ = false;
  is_judged_ = true;
  return absl::OkStatus();
}

void Rebalancer::OnStep(std::span<const LayerLoad> loads) {
  if (!forecast_) return;
  for (size_t i = 0; i < loads.size(); ++i) {
    // Counts are the step's own and cannot be wrong.
    GATEHOUSE_CHECK(forecast_->Add(static_cast<int>(i), loads[i].expert_tokens).ok());
  }
  if (is_judged_ || loads.empty()) return;
  for (size_t c = 0; c < changes_.size(); ++c) {
    const std::vector<int64_t>& tokens = loads[changes_[c].layer_idx].expert_tokens;
    for (size_t e = 0; e < tokens.size(); ++e) loads_since_[c][e] += static_cast<double>(tokens[e]);
  }
  Judge();
}

std::vector<int> Rebalancer::SetMembers(const Membership& membership) {
  lost_ranks_.clear();
  for (int r = 0; r < membership.num_ranks; ++r) {
    if (!membership.has(r)) lost_ranks_.push_back(r);
  }
  if (!lost_ranks_.empty()) {
    if (has_work()) {
      status_.state = RebalanceState::kIdle;
      status_.reason = absl::StrFormat("rank %d was lost", lost_ranks_.front());
    }
    is_judged_ = true;  // what was predicted was of all ranks
  }
  std::vector<int> changed;
  for (size_t l = 0; l < wanted_.size(); ++l) {
    ExpertPlacement placement = PlacementAmong(wanted_[l], membership.members);
    if (placement.copy_begin == placements_[l].copy_begin &&
        placement.copy_devices == placements_[l].copy_devices) {
      continue;
    }
    placements_[l] = std::move(placement);
    changed.push_back(static_cast<int>(l));
  }
  return changed;
}

std::optional<int> Rebalancer::Advance() {
  if (status_.state == RebalanceState::kMoving) return MoveLayer();
  if (status_.state != RebalanceState::kPlanned) return std::nullopt;
  PlanLayer();
  if (++next_layer_ == static_cast<int>(placements_.size())) EndPlan();
  return std::nullopt;
}

void Rebalancer::PlanLayer() {
  const ExpertPlacement& current = placements_[next_layer_];
  // One copy of the weights serves all ranks of a process: memory bounds nothing.
  const PlacementProblem problem{.loads = forecast_->Shares(next_layer_),
                                 .throughput = current.throughput,
                                 .slots = std::vector<int32_t>(num_ranks(), current.num_experts()),
                                 .num_replicas = options_.num_replicas};
  const double num_pairs = forecast_->num_pairs(next_layer_);
  absl::StatusOr<RebalancePlan> plan = PlanRebalance(problem, current, num_pairs, policy_);
  GATEHOUSE_CHECK(plan.ok()) << plan.status().ToString();
  const bool is_forced =
      options_.force && plan->verdict != RebalanceVerdict::kTooFewPairs && !plan->change.empty();
  const auto num_layers = static_cast<double>(placements_.size());
  const bool moves = plan->verdict == RebalanceVerdict::kWorthIt || is_forced;
  status_.imbalance += plan->imbalance / num_layers;
  status_.planned_imbalance += (moves ? plan->planned_imbalance : plan->imbalance) / num_layers;
  if (!moves) {
    status_.reason = ReasonOf(plan->verdict);
    return;
  }
  status_.num_copies += static_cast<int32_t>(plan->change.copies.size());
  changes_.push_back({next_layer_, std::move(plan->placement)});
}

void Rebalancer::EndPlan() {
  status_.num_layers = static_cast<int32_t>(changes_.size());
  if (changes_.empty()) {
    status_.state = RebalanceState::kIdle;
    return;
  }
  status_.reason.clear();
  status_.state = RebalanceState::kMoving;
}

std::optional<int> Rebalancer::MoveLayer() {
  const int change_idx = moves_back_ ? --status_.num_moved : status_.num_moved++;
  Change& change = changes_[change_idx];
  std::swap(wanted_[change.layer_idx], change.other);
  placements_[change.layer_idx] = wanted_[change.layer_idx];  // nobody is lost
  if (moves_back_ && status_.num_moved == 0) {
    status_.state = RebalanceState::kRolledBack;
  } else if (!moves_back_ && status_.num_moved == status_.num_layers) {
    status_.state = RebalanceState::kActive;
    is_judged_ = false;
    loads_since_.assign(changes_.size(), std::vector<double>(placements_.front().num_experts()));
  }
  return change.layer_idx;
}

// Once every changed layer has seen enough to tell from chance.
void Rebalancer::Judge() {
  const double enough = policy_.min_pairs_per_device * num_ranks();
  double now = 0, before = 0;
  for (size_t c = 0; c < changes_.size(); ++c) {
    if (Sum(loads_since_[c]) < enough) return;
    now += PredictedImbalance(placements_[changes_[c].layer_idx], loads_since_[c]);
    before += PredictedImbalance(changes_[c].other, loads_since_[c]);
  }
  is_judged_ = true;
  status_.obtained_imbalance = now / static_cast<double>(changes_.size());
  if (now <= before * kWorseFactor) return;
  status_.reason = absl::StrFormat("ranks were loaded %.2f to the mean, %.2f without it",
                                   now / static_cast<double>(changes_.size()),
                                   before / static_cast<double>(changes_.size()));
  status_.state = RebalanceState::kMoving;
  moves_back_ = true;
}

}  // namespace gatehouse
