#include "engine/shadow_exact.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "kernels/base/check.h"

namespace gatehouse {

double LumpedKl(std::span<const float> exact, std::span<const float> bounded) {
  // Less than this is left by rounding alone: then there are no others.
  constexpr double kLeastRest = 1e-6;
  GATEHOUSE_CHECK(exact.size() == bounded.size()) << exact.size() << " " << bounded.size();
  double kl = 0, exact_rest = 1, bounded_rest = 1;
  for (size_t i = 0; i < exact.size(); ++i) {
    const double p = std::exp(double{exact[i]});
    if (p > 0) kl += p * (double{exact[i]} - double{bounded[i]});
    exact_rest -= p;
    bounded_rest -= std::exp(double{bounded[i]});
  }
  exact_rest = std::max(exact_rest, kLeastRest);
  bounded_rest = std::max(bounded_rest, kLeastRest);
  kl += exact_rest * std::log(exact_rest / bounded_rest);
  return std::max(kl, 0.0);
}

ShadowExact::ShadowExact(const ShadowSetup& setup, Scheduler& scheduler, StepObserver& observer)
    : setup_(setup), scheduler_(scheduler), observer_(observer), budget_(kStepMs) {}

// Not the hash that breaks ties: the sample must not be of those who win them.
bool ShadowExact::IsSampled(const Request& request) const {
  if (request.mode == RoutingMode::kExact) return false;
  const std::string text = "shadow-exact/" + request.id;
  const uint64_t hash = KeyedHash(setup_.secret, std::as_bytes(std::span(text)));
  return static_cast<double>(hash >> 11) * 0x1p-53 < setup_.fraction;
}

BoundedRun* ShadowExact::Watch(SequenceId ticket, const std::shared_ptr<const Request>& request) {
  if (!IsSampled(*request)) return nullptr;
  if (closed_ || watched_.size() + queue_.size() >= kMaxRuns) {
    Skip(request->mode);
    return nullptr;
  }
  std::unique_ptr<BoundedRun>& run = watched_[ticket];
  run = std::make_unique<BoundedRun>();
  run->request = request;
  return run.get();
}

void ShadowExact::Ended(SequenceId ticket, bool finished) {
  auto node = watched_.extract(ticket);
  if (node.empty() || !finished) return;
  const RoutingMode mode = node.mapped()->request->mode;
  if (closed_) {
    Skip(mode);
    return;
  }
  queue_.push_back({.run = std::move(node.mapped()), .stats = {.mode = mode}});
}

void ShadowExact::Begin() {
  const BoundedRun& run = *queue_.front().run;
  tokens_ = run.request->prompt_ids;
  for (const BoundedRun::NextToken& next : run.tokens) tokens_.push_back(next.id);
  tokens_.pop_back();
  block_ids_ = scheduler_.Lend(static_cast<int64_t>(tokens_.size()));
  num_computed_ = 0;
}

const StepPlan& ShadowExact::Plan() {
  if (block_ids_.empty()) Begin();
  const Replay& replay = queue_.front();
  const auto num_tokens = static_cast<int32_t>(tokens_.size());
  const int32_t end = num_computed_ + std::min({num_tokens - num_computed_, budget_.max_tokens(),
                                                setup_.max_step_tokens});
  plan_ = {.is_replay = true};
  plan_.token_ids.assign(tokens_.begin() + num_computed_, tokens_.begin() + end);
  for (int32_t p = num_computed_; p < end; ++p) plan_.positions.push_back(p);
  plan_.spans.push_back({.first_row = 0,
                         .num_rows = end - num_computed_,
                         .first_position = num_computed_,
                         .block_ids = block_ids_});
  plan_.span_sequences.push_back(0);
  plan_.span_ranks.push_back(0);
  plan_.num_prefill_tokens = plan_.num_rows();
  // Row p tells of the token at p + 1. What was compared before an interruption is not again.
  const auto first_row = static_cast<int32_t>(replay.run->request->prompt_ids.size()) - 1;
  sampling_.clear();
  for (int32_t p = std::max(first_row + replay.stats.num_tokens, num_computed_); p < end; ++p) {
    plan_.logit_rows.push_back({.row = p - num_computed_, .position = p});
    sampling_.push_back({.wanted_ids = replay.run->tokens[p - first_row].top_ids});
  }
  return plan_;
}

void ShadowExact::Commit(const absl::StatusOr<StepResult>& result, Duration duration) {
  if (!result.ok() || !Compare(*result)) {
    EndFirst(false);
    return;
  }
  budget_.Learn(plan_.num_rows(), 0, duration);
  num_computed_ += plan_.num_rows();
  if (num_computed_ == static_cast<int32_t>(tokens_.size())) EndFirst(true);
}

// False when the model computed what is not finite.
bool ShadowExact::Compare(const StepResult& result) {
  for (const uint8_t failed : result.row_failed) {
    if (failed != 0) return false;
  }
  Replay& replay = queue_.front();
  ShadowStats& stats = replay.stats;
  for (const RowSample& sample : result.samples) {
    if (sample.failure != SampleFailure::kNone) return false;
    const BoundedRun::NextToken& bounded = replay.run->tokens[stats.num_tokens];
    ++stats.num_tokens;
    if (sample.token_id == bounded.top_ids.front()) ++stats.num_agreed;
    stats.kl_nats += LumpedKl(sample.wanted, bounded.top_logprobs);
  }
  return true;
}

void ShadowExact::EndFirst(bool replayed) {
  ReturnBlocks();
  Replay replay = std::move(queue_.front());
  queue_.pop_front();
  if (!replayed) {
    Skip(replay.stats.mode);
    return;
  }
  replay.stats.replayed = true;
  observer_.OnShadow(replay.stats);
}

void ShadowExact::Skip(RoutingMode mode) { observer_.OnShadow({.mode = mode}); }

void ShadowExact::ReturnBlocks() {
  scheduler_.TakeBack(block_ids_);
  block_ids_.clear();
}

void ShadowExact::Yield() {
  if (block_ids_.empty()) return;
  ReturnBlocks();
  if (++queue_.front().num_interruptions == kMaxInterruptions) EndFirst(false);
}

void ShadowExact::Close() {
  closed_ = true;
  while (!queue_.empty()) EndFirst(false);
}

}  // namespace gatehouse
