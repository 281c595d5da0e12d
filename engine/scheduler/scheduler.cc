#include "engine/scheduler/scheduler.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_format.h"
#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

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
      blocks_({.num_ranks = setup.num_ranks,
               .num_blocks = setup.num_blocks,
               .block_tokens = setup.block_tokens,
               .hash_seed = setup.hash_seed}),
      members_(setup.num_ranks),
      grid_{.block_tokens = setup.block_tokens,
            .max_chunk_tokens = std::max(setup.options.max_step_tokens - max_running_, 1),
            .secret = setup.routing_secret},
      prefill_budget_(setup.options.max_step_ms) {
  std::iota(members_.begin(), members_.end(), 0);
  GATEHOUSE_CHECK(options_.max_step_tokens >= 1) << "max_step_tokens " << options_.max_step_tokens;
}

void Scheduler::Add(SequenceId ticket, const std::shared_ptr<const Request>& request,
                    TimePoint arrival) {
  GATEHOUSE_CHECK(!in_flight_);
  const auto num_prompt_tokens = static_cast<int64_t>(request->prompt_ids.size());
  const int64_t most_tokens = num_prompt_tokens + request->stop.max_new_tokens;
  GATEHOUSE_CHECK(num_prompt_tokens >= 1 && most_tokens <= max_sequence_tokens())
      << most_tokens << " tokens, limit " << max_sequence_tokens();
  const int steps_below_high =
      static_cast<int>(Priority::kHigh) - static_cast<int>(request->priority);
  if (request->deadline != kNoDeadline) deadlines_.insert({request->deadline, ticket});
  const auto [open, is_new] =
      requests_.emplace(ticket, OpenRequest{.request = request,
                                            .tenant = &tenants_.StateOf(*request),
                                            .turn = arrival + steps_below_high * kPriorityDelay,
                                            .num_open = request->sampling.n});
  GATEHOUSE_CHECK(is_new) << "request " << ticket << " is there already";
  tenants_.Arrive(AddOutput(ticket, open->second, 0));
}

Sequence& Scheduler::AddOutput(SequenceId ticket, const OpenRequest& open, int32_t output_index) {
  const Request& request = *open.request;
  auto sequence = std::make_unique<Sequence>();
  sequence->id = ticket + output_index;
  sequence->output_index = output_index;
  sequence->request = open.request;
  sequence->tenant = open.tenant;
  sequence->turn = open.turn;
  sequence->num_prompt_tokens = static_cast<int32_t>(request.prompt_ids.size());
  // Once and for all: plans point into these.
  const int64_t most_tokens = int64_t{sequence->num_prompt_tokens} + request.stop.max_new_tokens;
  sequence->tokens.reserve(most_tokens);
  sequence->tokens.assign(request.prompt_ids.begin(), request.prompt_ids.end());
  sequence->block_ids.reserve(blocks_.BlocksFor(most_tokens));
  SetRouting(grid_, *sequence);
  sequence->wants_every_row = WantsEveryRow(request.output);
  if (output_index > 0) {  // the first output tells of the prompt
    sequence->num_seen = sequence->num_prompt_tokens;
    sequence->num_cached_prompt_tokens = 0;
  }
  const auto [entry, is_new] = sequences_.emplace(sequence->id, std::move(sequence));
  GATEHOUSE_CHECK(is_new) << "output " << output_index << " of request " << ticket << " is there";
  return *entry->second;
}

void Scheduler::AddOtherOutputs(SequenceId ticket) {
  const OpenRequest& open = requests_.at(ticket);
  for (int32_t i = 1; i < open.request->sampling.n; ++i) {
    tenants_.Return(AddOutput(ticket, open, i));
  }
}

bool Scheduler::Remove(SequenceId ticket) {
  GATEHOUSE_CHECK(!in_flight_);
  const auto found = requests_.find(ticket);
  if (found == requests_.end()) return false;
  const OpenRequest open = found->second;
  for (int32_t i = 0; i < open.request->sampling.n; ++i) RemoveOutput(ticket + i);
  // Unless the last of them has taken it along: the other outputs were still to come.
  requests_.erase(ticket);
  deadlines_.erase({open.request->deadline, ticket});
  return true;
}

void Scheduler::RemoveOutput(SequenceId id) {
  GATEHOUSE_CHECK(!in_flight_);
  const auto found = sequences_.find(id);
  if (found != sequences_.end()) Erase(*found->second);
}

std::vector<SequenceId> Scheduler::TakeExpired(TimePoint now) {
  GATEHOUSE_CHECK(!in_flight_);
  std::vector<SequenceId> expired;
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    expired.push_back(deadlines_.begin()->second);
    Remove(expired.back());
  }
  return expired;
}

std::span<const SequenceUpdate> Scheduler::Commit(const StepOutcome& outcome) {
  GATEHOUSE_CHECK(in_flight_);
  if (outcome.status.ok()) {
    GATEHOUSE_CHECK(
        outcome.samples.size() == plan_.logit_rows.size() &&
        outcome.row_failed.size() == plan_.token_ids.size() &&
        (outcome.row_touched.empty() || outcome.row_touched.size() == plan_.token_ids.size()))
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

void Scheduler::Abandon() {
  GATEHOUSE_CHECK(in_flight_);
  in_flight_ = false;
  for (const PlannedSpan& planned : planned_) {
    planned.sequence->in_plan = false;
    Preempt(*planned.sequence);
  }
}

void Scheduler::PreemptAll(int rank) {
  GATEHOUSE_CHECK(!in_flight_);
  const std::vector<Sequence*> running = running_;
  for (Sequence* const sequence : running) {
    if (sequence->rank == rank) Preempt(*sequence);
  }
}

void Scheduler::SetMembers(const std::vector<int>& members, std::span<const int> emptied) {
  GATEHOUSE_CHECK(!in_flight_ && !members.empty());
  members_ = members;
  for (const int r : emptied) {
    PreemptAll(r);
    blocks_.Forget(r);
  }
}

SequenceUpdate Scheduler::CommitSpan(int32_t span_idx, const StepOutcome& outcome) {
  const PlannedSpan& planned = planned_[span_idx];
  const SequenceSpan& span = plan_.spans[span_idx];
  Sequence& sequence = *planned.sequence;
  SequenceUpdate update{.sequence = sequence.id,
                        .output_index = sequence.output_index,
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
  NoteTouched(span, outcome.row_touched, sequence);
  blocks_.Index(sequence);
  const bool has_token = sequence.num_uncomputed() == 0;
  const int32_t num_new_prompt_rows =
      std::clamp(sequence.num_prompt_tokens - update.first_new_position, 0, update.num_new_rows);
  tenants_.Charge(*sequence.tenant, num_new_prompt_rows + (has_token ? 1 : 0));
  if (has_token) {
    --update.num_prompt_targets;
    update.sample_idx = planned.first_logit_row + planned.num_logit_rows - 1;
    update.finish_reason = AppendToken(sequence, outcome.samples[update.sample_idx].token_id);
    update.num_generated_tokens = sequence.num_generated();
    if (sequence.output_index == 0 && sequence.num_generated() == 1) {
      AddOtherOutputs(sequence.ticket());
    }
    if (update.finish_reason.has_value()) Erase(sequence);
  }
  return update;
}

// Shared bounds moved a pair of a row: from its position on the keys and values are no function of
// the tokens alone.
void Scheduler::NoteTouched(const SequenceSpan& span, std::span<const uint8_t> row_touched,
                            Sequence& sequence) {
  if (row_touched.empty() || sequence.request->mode != RoutingMode::kShared) return;
  for (int32_t i = 0; i < span.num_rows; ++i) {
    if (row_touched[span.first_row + i] == 0) continue;
    sequence.clean_end = std::min(sequence.clean_end, span.first_position + i);
    return;
  }
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
  if (sequence.running) {
    StopRunning(sequence);
  } else {
    tenants_.Leave(sequence);
  }
  const SequenceId ticket = sequence.ticket();
  const auto open = requests_.find(ticket);
  if (--open->second.num_open == 0) {
    deadlines_.erase({sequence.request->deadline, ticket});
    requests_.erase(open);
  }
  sequences_.erase(sequence.id);
}

int32_t Scheduler::num_used_blocks() const {
  int32_t num_used = 0;
  for (int r = 0; r < num_ranks(); ++r) num_used += block_pool(r).num_used();
  return num_used;
}

std::vector<int32_t> Scheduler::Lend(int64_t num_tokens) {
  GATEHOUSE_CHECK(empty() && num_tokens <= max_sequence_tokens())
      << requests_.size() << " requests, " << num_tokens << " tokens";
  return blocks_.Lend(num_tokens);
}

absl::Status Scheduler::CheckInvariants() const {
  GATEHOUSE_CHECK(!in_flight_);
  GATEHOUSE_RETURN_IF_ERROR(blocks_.CheckInvariants());
  int64_t num_held = 0, num_holders = 0;
  for (const auto& [id, sequence] : sequences_) {
    GATEHOUSE_RETURN_IF_ERROR(CheckSequence(*sequence));
    num_held += static_cast<int64_t>(sequence->block_ids.size());
  }
  for (int r = 0; r < num_ranks(); ++r) {
    for (int32_t id = 0; id < block_pool(r).num_blocks(); ++id) {
      num_holders += block_pool(r).ref_count(id);
    }
  }
  if (num_held != num_holders) {
    return absl::InternalError(
        absl::StrFormat("sequences hold %d blocks, holders counted %d", num_held, num_holders));
  }
  if (running_.size() + static_cast<size_t>(num_waiting()) != sequences_.size() ||
      num_running() > max_running_ ||
      !std::is_sorted(running_.begin(), running_.end(), RunsBefore())) {
    return absl::InternalError(
        absl::StrFormat("%d running in order (limit %d) and %d waiting of %d sequences",
                        running_.size(), max_running_, num_waiting(), sequences_.size()));
  }
  return tenants_.CheckInvariants(running_);
}

absl::Status Scheduler::CheckSequence(const Sequence& sequence) const {
  if (sequence.in_plan || sequence.num_computed >= sequence.num_tokens() ||
      sequence.num_seen > sequence.num_tokens()) {
    return absl::InternalError(absl::StrFormat("sequence %d: %d tokens, %d computed, %d seen",
                                               sequence.id, sequence.num_tokens(),
                                               sequence.num_computed, sequence.num_seen));
  }
  return blocks_.CheckSequence(sequence);
}

}  // namespace gatehouse
