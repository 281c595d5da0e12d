#include "engine/scheduler/tenant_queues.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace gatehouse {
namespace {

QueueCounts& CountsOf(const Sequence& sequence, PriorityCounts& counts) {
  return counts[static_cast<size_t>(sequence.request->priority)];
}

}  // namespace

TenantState& TenantQueues::StateOf(const Request& request) {
  const Tenant tenant = request.tenant == nullptr ? Tenant{} : *request.tenant;
  TenantState*& state = name_to_state_[tenant.name];
  if (state == nullptr) {
    states_.push_back(std::make_unique<TenantState>());
    state = states_.back().get();
  }
  state->tenant = tenant;
  state->use.weight = tenant.weight;
  return *state;
}

void TenantQueues::Arrive(Sequence& sequence) {
  TenantState& state = *sequence.tenant;
  if (state.waiting.empty()) {
    const TenantState* least = nullptr;
    for (const auto& other : states_) {
      if (!other->may_start()) continue;
      if (least == nullptr || other->use.virtual_tokens < least->use.virtual_tokens) {
        least = other.get();
      }
    }
    state.use.virtual_tokens = std::max(state.use.virtual_tokens,
                                        least == nullptr ? last_left_ : least->use.virtual_tokens);
    state.use.joined = ++num_joined_;
  }
  Return(sequence);
}

void TenantQueues::Return(Sequence& sequence) {
  TenantState& state = *sequence.tenant;
  state.waiting.insert(&sequence);
  state.num_waiting_tokens += sequence.num_queue_tokens();
  num_waiting_tokens_ += sequence.num_queue_tokens();
  ++num_waiting_;
  QueueCounts& counts = CountsOf(sequence, priority_counts_);
  ++counts.num_waiting;
  counts.num_waiting_tokens += sequence.num_queue_tokens();
}

void TenantQueues::Leave(Sequence& sequence) {
  TenantState& state = *sequence.tenant;
  state.waiting.erase(&sequence);
  state.num_waiting_tokens -= sequence.num_queue_tokens();
  num_waiting_tokens_ -= sequence.num_queue_tokens();
  --num_waiting_;
  QueueCounts& counts = CountsOf(sequence, priority_counts_);
  --counts.num_waiting;
  counts.num_waiting_tokens -= sequence.num_queue_tokens();
  if (state.waiting.empty()) last_left_ = state.use.virtual_tokens;
}

void TenantQueues::CountRunning(const Sequence& sequence, int32_t change) {
  sequence.tenant->use.num_running += change;
  CountsOf(sequence, priority_counts_).num_running += change;
}

Sequence* TenantQueues::Next() const {
  const TenantState* first = nullptr;
  for (const auto& state : states_) {
    if (!state->may_start()) continue;
    if (first == nullptr || ServedBefore(state->use, first->use)) first = state.get();
  }
  return first == nullptr ? nullptr : *first->waiting.begin();
}

void TenantQueues::Charge(TenantState& state, int64_t num_tokens) {
  state.use.virtual_tokens += VirtualTokens(num_tokens, state.use.weight);
}

absl::Status TenantQueues::CheckInvariants(std::span<Sequence* const> running) const {
  int32_t num_waiting = 0;
  int64_t num_waiting_tokens = 0;
  PriorityCounts counts = {};
  for (const Sequence* sequence : running) ++CountsOf(*sequence, counts).num_running;
  for (const auto& state : states_) {
    int64_t num_tokens = 0;
    for (const Sequence* sequence : state->waiting) {
      num_tokens += sequence->num_queue_tokens();
      ++CountsOf(*sequence, counts).num_waiting;
      CountsOf(*sequence, counts).num_waiting_tokens += sequence->num_queue_tokens();
      if (sequence->num_computed != 0 || sequence->running || sequence->tenant != state.get()) {
        return absl::InternalError(
            absl::StrFormat("sequence %d waits with %d positions in the cache", sequence->id,
                            sequence->num_computed));
      }
    }
    if (num_tokens != state->num_waiting_tokens) {
      return absl::InternalError(absl::StrFormat("tenant %s: %d tokens wait, counted %d",
                                                 state->tenant.name, num_tokens,
                                                 state->num_waiting_tokens));
    }
    num_waiting += state->num_waiting();
    num_waiting_tokens += num_tokens;
  }
  for (int i = 0; i < kNumPriorities; ++i) {
    if (counts[i] == priority_counts_[i]) continue;
    return absl::InternalError(absl::StrFormat(
        "priority %d: %d run and %d wait, counted %d and %d", i, counts[i].num_running,
        counts[i].num_waiting, priority_counts_[i].num_running, priority_counts_[i].num_waiting));
  }
  if (num_waiting != num_waiting_ || num_waiting_tokens != num_waiting_tokens_) {
    return absl::InternalError(absl::StrFormat("%d sequences with %d tokens wait, counted %d, %d",
                                               num_waiting, num_waiting_tokens, num_waiting_,
                                               num_waiting_tokens_));
  }
  return absl::OkStatus();
}

}  // namespace gatehouse
