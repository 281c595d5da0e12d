#include "engine/scheduler/scheduler.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

// No two pairs of tenant and salt give one scope: the length tells where the name ends.
std::string CacheScopeOf(const Request& request) {
  const std::string tenant = request.tenant == nullptr ? Tenant{}.name : request.tenant->name;
  return absl::StrFormat("%d:%s%s", tenant.size(), tenant, request.cache_salt);
}

// What comes out tells of each row of the prompt: then each is computed.
bool WantsEveryRow(const OutputParams& output) {
  return output.prompt_logprobs.has_value() || output.routed_experts || output.moe_report;
}

// Which field to blame is a guess where several forbid: the one that forbids most comes first.
absl::Status NothingLeftToChoose(const Request& request, int32_t position) {
  return absl::InvalidArgumentError(absl::StrFormat(
      "%s: no token is left at position %d: allowed_token_ids, bad_words and stop.min_new_tokens "
      "forbid them all",
      request.sampling.allowed_token_ids.empty() ? "sampling.bad_words"
                                                 : "sampling.allowed_token_ids",
      position));
}

bool Contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

Scheduler::Scheduler(const SchedulerSetup& setup)
    : options_(setup.options),
      max_running_(MaxRunning(setup.options)),
      eos_token_ids_(setup.eos_token_ids),
      blocks_(setup.num_blocks, setup.block_tokens, setup.hash_seed),
      prefill_budget_(setup.options.max_step_ms) {
  GATEHOUSE_CHECK(options_.max_step_tokens >= 1) << "max_step_tokens " << options_.max_step_tokens;
}

void Scheduler::Add(SequenceId id, std::shared_ptr<const Request> request, TimePoint arrival) {
  GATEHOUSE_CHECK(!in_flight_);
  const auto num_prompt_tokens = static_cast<int32_t>(request->prompt_ids.size());
  const int64_t most_tokens = int64_t{num_prompt_tokens} + request->stop.max_new_tokens;
  GATEHOUSE_CHECK(num_prompt_tokens >= 1 && most_tokens <= max_sequence_tokens())
      << most_tokens << " tokens, limit " << max_sequence_tokens();
  const int steps_below_high =
      static_cast<int>(Priority::kHigh) - static_cast<int>(request->priority);
  auto sequence = std::make_unique<Sequence>();
  sequence->id = id;
  sequence->turn = arrival + steps_below_high * kPriorityDelay;
  sequence->num_prompt_tokens = num_prompt_tokens;
  // Once and for all: plans point into these.
  sequence->tokens.reserve(most_tokens);
  sequence->tokens.assign(request->prompt_ids.begin(), request->prompt_ids.end());
  sequence->block_ids.reserve(blocks_.BlocksFor(most_tokens));
  sequence->cache_scope = CacheScopeOf(*request);
  sequence->wants_every_row = WantsEveryRow(request->output);
  if (request->deadline != kNoDeadline) deadlines_.insert({request->deadline, id});
  sequence->request = std::move(request);
  waiting_.insert(sequence.get());
  num_waiting_tokens_ += num_prompt_tokens;
  const bool is_new = sequences_.emplace(id, std::move(sequence)).second;
  GATEHOUSE_CHECK(is_new) << "sequence " << id << " is there already";
}

bool Scheduler::Remove(SequenceId id) {
  GATEHOUSE_CHECK(!in_flight_);
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return false;
  Erase(*found->second);
  return true;
}

std::vector<SequenceId> Scheduler::TakeExpired(TimePoint now) {
  GATEHOUSE_CHECK(!in_flight_);
  std::vector<SequenceId> expired;
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    expired.push_back(deadlines_.begin()->second);
    Erase(*sequences_.at(expired.back()));
  }
  return expired;
}

const StepPlan& Scheduler::Plan() {
  GATEHOUSE_CHECK(!in_flight_);
  plan_.token_ids.clear();
  plan_.positions.clear();
  plan_.spans.clear();
  plan_.span_sequences.clear();
  plan_.logit_rows.clear();
  plan_.num_prefill_tokens = 0;
  plan_.num_decode_tokens = 0;
  plan_.num_new_prompt_tokens = 0;
  planned_.clear();
  num_preemptions_ = 0;
  num_cached_prompt_tokens_ = 0;

  StartWaiting();
  PlanDecodes();
  PlanPrefills();
  GATEHOUSE_CHECK(plan_.empty() == sequences_.empty()) << "the oldest sequence must progress";
  in_flight_ = !plan_.empty();
  return plan_;
}

void Scheduler::StartWaiting() {
  if (waiting_.empty() || num_running() >= max_running_) return;
  int64_t num_promised = 0;
  for (const Sequence* sequence : running_) {
    num_promised += blocks_.BlocksFor(sequence->num_tokens()) -
                    static_cast<int64_t>(sequence->block_ids.size());
  }
  while (!waiting_.empty() && num_running() < max_running_ && StartNext(num_promised)) {
  }
}

// A sequence starts when all its tokens will fit beside what the running ones still need for
// theirs, and one more block for each of them: else it would soon be preempted.
bool Scheduler::StartNext(int64_t& num_promised) {
  Sequence* const next = *waiting_.begin();
  const int64_t num_kept_free = running_.empty() ? 0 : num_promised + num_running();
  // It needs one at least: this spares the look into the cache while memory is full.
  if (block_pool().num_free() < num_kept_free + 1) return false;
  blocks_.Reuse(*next);
  const int64_t num_missing =
      blocks_.BlocksFor(next->num_tokens()) - static_cast<int64_t>(next->block_ids.size());
  if (!running_.empty() && block_pool().num_free() < num_kept_free + num_missing) {
    blocks_.Free(*next);
    return false;
  }
  num_promised += num_missing;
  num_waiting_tokens_ -= next->num_tokens();
  waiting_.erase(waiting_.begin());
  running_.insert(std::upper_bound(running_.begin(), running_.end(), next, RunsBefore()), next);
  return true;
}

// Victims of a preemption are younger, so they stand behind the index: it stays right.
void Scheduler::PlanDecodes() {
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i];
    if (sequence.decoding() && MakeRoom(sequence, 1) == 1) AppendSpan(sequence, 1);
  }
  plan_.num_decode_tokens = plan_.num_rows();
}

void Scheduler::PlanPrefills() {
  int32_t budget =
      std::min(prefill_budget_.max_tokens(), options_.max_step_tokens - plan_.num_decode_tokens);
  for (size_t i = 0; i < running_.size() && budget > 0; ++i) {
    Sequence& sequence = *running_[i];
    if (sequence.in_plan || sequence.decoding()) continue;
    blocks_.Reuse(sequence);  // what others have computed since it started
    const int32_t num_rows = MakeRoom(sequence, std::min(sequence.num_uncomputed(), budget));
    if (num_rows == 0) continue;
    AppendSpan(sequence, num_rows);
    budget -= num_rows;
  }
  plan_.num_prefill_tokens = plan_.num_rows() - plan_.num_decode_tokens;
}

void Scheduler::AppendSpan(Sequence& sequence, int32_t num_rows) {
  const int32_t first_row = plan_.num_rows();
  const int32_t first_position = sequence.num_computed;
  const int32_t end_position = first_position + num_rows;
  if (sequence.num_cached_prompt_tokens < 0) {
    sequence.num_cached_prompt_tokens = first_position;
    num_cached_prompt_tokens_ += first_position;
  }
  sequence.num_seen = std::max(sequence.num_seen, first_position);
  const auto first_logit_row = static_cast<int32_t>(plan_.logit_rows.size());
  const auto first_token = sequence.tokens.begin() + first_position;
  plan_.token_ids.insert(plan_.token_ids.end(), first_token, first_token + num_rows);
  for (int32_t i = 0; i < num_rows; ++i) plan_.positions.push_back(first_position + i);
  plan_.spans.push_back({.first_row = first_row,
                         .num_rows = num_rows,
                         .first_position = first_position,
                         .block_ids = sequence.block_ids});
  plan_.span_sequences.push_back(sequence.id);
  plan_.num_new_prompt_tokens += std::max(std::min(end_position, sequence.num_prompt_tokens) -
                                              std::max(first_position, sequence.num_seen),
                                          0);
  if (sequence.request->output.prompt_logprobs.has_value()) {
    const int32_t end = std::min(end_position, sequence.num_prompt_tokens - 1);
    for (int32_t p = std::max(first_position, sequence.num_seen); p < end; ++p) {
      plan_.logit_rows.push_back({.sequence = sequence.id,
                                  .row = first_row + p - first_position,
                                  .position = p,
                                  .prompt_target = sequence.tokens[p + 1]});
    }
  }
  if (end_position == sequence.num_tokens()) {
    plan_.logit_rows.push_back(
        {.sequence = sequence.id, .row = first_row + num_rows - 1, .position = end_position - 1});
  }
  planned_.push_back(
      {.sequence = &sequence,
       .first_logit_row = first_logit_row,
       .num_logit_rows = static_cast<int32_t>(plan_.logit_rows.size()) - first_logit_row});
  sequence.in_plan = true;
}

int32_t Scheduler::MakeRoom(Sequence& sequence, int32_t num_positions) {
  int32_t room = blocks_.Grow(sequence, num_positions);
  while (room < num_positions && PreemptYoungerThan(sequence)) {
    room = blocks_.Grow(sequence, num_positions);
  }
  return room;
}

bool Scheduler::PreemptYoungerThan(const Sequence& sequence) {
  for (auto it = running_.rbegin(); it != running_.rend() && *it != &sequence; ++it) {
    Sequence* const victim = *it;
    // Rows of this step's plan stay; what holds nothing gives nothing.
    if (victim->in_plan || victim->block_ids.empty()) continue;
    blocks_.Free(*victim);
    ++victim->num_preemptions;
    ++num_preemptions_;
    running_.erase(std::next(it).base());
    waiting_.insert(victim);
    num_waiting_tokens_ += victim->num_tokens();
    return true;
  }
  return false;
}

std::span<const SequenceUpdate> Scheduler::Commit(const StepOutcome& outcome) {
  GATEHOUSE_CHECK(in_flight_);
  if (outcome.status.ok()) {
    GATEHOUSE_CHECK(outcome.samples.size() == plan_.logit_rows.size() &&
                    outcome.row_failed.size() == plan_.token_ids.size())
        << outcome.samples.size() << " samples, " << outcome.row_failed.size() << " rows";
    prefill_budget_.Learn(plan_.num_prefill_tokens, plan_.num_decode_tokens, outcome.duration);
  }
  in_flight_ = false;
  updates_.clear();
  for (int32_t i = 0; i < static_cast<int32_t>(planned_.size()); ++i) {
    updates_.push_back(CommitSpan(i, outcome));
  }
  return updates_;
}

SequenceUpdate Scheduler::CommitSpan(int32_t span_idx, const StepOutcome& outcome) {
  const PlannedSpan& planned = planned_[span_idx];
  const SequenceSpan& span = plan_.spans[span_idx];
  Sequence& sequence = *planned.sequence;
  SequenceUpdate update{.sequence = sequence.id,
                        .status = StatusOfSpan(span_idx, outcome),
                        .num_generated_tokens = sequence.num_generated(),
                        .num_cached_prompt_tokens = sequence.num_cached_prompt_tokens,
                        .num_preemptions = sequence.num_preemptions};
  sequence.in_plan = false;
  sequence.num_computed += span.num_rows;
  if (!update.status.ok()) {
    Erase(sequence);
    return update;
  }
  update.first_new_position = std::max(sequence.num_seen, span.first_position);
  update.num_new_rows = std::max(sequence.num_computed - update.first_new_position, 0);
  update.first_new_row = span.first_row + update.first_new_position - span.first_position;
  update.first_logit_row = planned.first_logit_row;
  update.num_prompt_targets = planned.num_logit_rows;
  sequence.num_seen = std::max(sequence.num_seen, sequence.num_computed);
  blocks_.Index(sequence);
  if (sequence.num_uncomputed() == 0) {
    --update.num_prompt_targets;
    update.sample_idx = planned.first_logit_row + planned.num_logit_rows - 1;
    update.finish_reason = AppendToken(sequence, outcome.samples[update.sample_idx].token_id);
    update.num_generated_tokens = sequence.num_generated();
    if (update.finish_reason.has_value()) Erase(sequence);
  }
  return update;
}

absl::Status Scheduler::StatusOfSpan(int32_t span_idx, const StepOutcome& outcome) const {
  if (!outcome.status.ok()) {
    return absl::InternalError(absl::StrFormat("the step failed: %s", outcome.status.ToString()));
  }
  const SequenceSpan& span = plan_.spans[span_idx];
  for (int32_t i = 0; i < span.num_rows; ++i) {
    if (outcome.row_failed[span.first_row + i] == 0) continue;
    return absl::InternalError(absl::StrFormat(
        "position %d: the model computed a value that is not finite", span.first_position + i));
  }
  const PlannedSpan& planned = planned_[span_idx];
  for (int32_t i = 0; i < planned.num_logit_rows; ++i) {
    const int32_t idx = planned.first_logit_row + i;
    const int32_t position = plan_.logit_rows[idx].position + 1;
    switch (outcome.samples[idx].failure) {
      case SampleFailure::kNone:
        continue;
      case SampleFailure::kNotFinite:
        return absl::InternalError(absl::StrFormat(
            "position %d: the model computed a logit that is not finite", position));
      case SampleFailure::kAllForbidden:
        return NothingLeftToChoose(*planned.sequence->request, position);
    }
  }
  return absl::OkStatus();
}

// The sampler has banned stopping tokens while there were fewer than min_new_tokens; one that comes
// all the same does not stop.
std::optional<FinishReason> Scheduler::AppendToken(Sequence& sequence, int32_t token_id) const {
  const StopParams& stop = sequence.request->stop;
  const bool may_stop = sequence.num_generated() >= stop.min_new_tokens;
  sequence.tokens.push_back(token_id);
  if (may_stop && !stop.ignore_eos && Contains(eos_token_ids_, token_id)) {
    return FinishReason::kStopEos;
  }
  if (may_stop && Contains(stop.token_ids, token_id)) return FinishReason::kStopToken;
  if (sequence.num_generated() >= stop.max_new_tokens) return FinishReason::kLength;
  return std::nullopt;
}

void Scheduler::Erase(Sequence& sequence) {
  blocks_.Free(sequence);
  const auto position = std::lower_bound(running_.begin(), running_.end(), &sequence, RunsBefore());
  if (position != running_.end() && *position == &sequence) {
    running_.erase(position);
  } else {
    num_waiting_tokens_ -= sequence.num_tokens();
    waiting_.erase(&sequence);
  }
  deadlines_.erase({sequence.request->deadline, sequence.id});
  sequences_.erase(sequence.id);
}

absl::Status Scheduler::CheckInvariants() const {
  GATEHOUSE_CHECK(!in_flight_);
  GATEHOUSE_RETURN_IF_ERROR(blocks_.CheckInvariants());
  int64_t num_held = 0, num_holders = 0;
  for (const auto& [id, sequence] : sequences_) {
    GATEHOUSE_RETURN_IF_ERROR(CheckSequence(*sequence));
    num_held += static_cast<int64_t>(sequence->block_ids.size());
  }
  for (int32_t id = 0; id < block_pool().num_blocks(); ++id) {
    num_holders += block_pool().ref_count(id);
  }
  if (num_held != num_holders) {
    return absl::InternalError(
        absl::StrFormat("sequences hold %d blocks, holders counted %d", num_held, num_holders));
  }
  if (running_.size() + waiting_.size() != sequences_.size() || num_running() > max_running_ ||
      !std::is_sorted(running_.begin(), running_.end(), RunsBefore())) {
    return absl::InternalError(
        absl::StrFormat("%d running in order (limit %d) and %d waiting of %d sequences",
                        running_.size(), max_running_, waiting_.size(), sequences_.size()));
  }
  int64_t num_waiting_tokens = 0;
  for (const Sequence* sequence : waiting_) {
    num_waiting_tokens += sequence->num_tokens();
    if (sequence->num_computed != 0 || sequences_.count(sequence->id) == 0) {
      return absl::InternalError(absl::StrFormat("sequence %d waits with %d positions in the cache",
                                                 sequence->id, sequence->num_computed));
    }
  }
  if (num_waiting_tokens != num_waiting_tokens_) {
    return absl::InternalError(
        absl::StrFormat("%d tokens wait, counted %d", num_waiting_tokens, num_waiting_tokens_));
  }
  return absl::OkStatus();
}

absl::Status Scheduler::CheckSequence(const Sequence& sequence) const {
  if (sequence.in_plan || sequence.num_computed >= sequence.num_tokens() ||
      sequence.num_seen >= sequence.num_tokens()) {
    return absl::InternalError(absl::StrFormat("sequence %d: %d tokens, %d computed, %d seen",
                                               sequence.id, sequence.num_tokens(),
                                               sequence.num_computed, sequence.num_seen));
  }
  return blocks_.CheckSequence(sequence);
}

}  // namespace gatehouse
