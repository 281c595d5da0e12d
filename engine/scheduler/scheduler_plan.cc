// Scheduler::Plan: who starts, who runs in this step, who gives up its blocks.
#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/scheduler/scheduler.h"
#include "kernels/base/check.h"

namespace gatehouse {
namespace {

template <typename T>
int32_t IndexOf(const std::vector<T>& values, const std::type_identity_t<T>& value) {
  const auto found = std::find(values.begin(), values.end(), value);
  return found == values.end() ? -1 : static_cast<int32_t>(found - values.begin());
}

}  // namespace

const StepPlan& Scheduler::Plan() {
  GATEHOUSE_CHECK(!in_flight_);
  plan_.token_ids.clear();
  plan_.positions.clear();
  plan_.spans.clear();
  plan_.span_sequences.clear();
  plan_.span_ranks.clear();
  plan_.logit_rows.clear();
  plan_.num_prefill_tokens = 0;
  plan_.num_decode_tokens = 0;
  plan_.num_new_prompt_tokens = 0;
  planned_.clear();
  num_preemptions_ = 0;
  num_cached_prompt_tokens_ = 0;

  StartWaiting();
  RankRunning();
  PlanDecodes();
  PlanPrefills();
  RouteRows();
  GATEHOUSE_CHECK(plan_.empty() == sequences_.empty()) << "the oldest sequence must progress";
  in_flight_ = !plan_.empty();
  return plan_;
}

void Scheduler::StartWaiting() {
  while (Sequence* const next = tenants_.Next()) {
    while (num_running() >= max_running_ || !Start(*next)) {
      if (!TakePlaceFor(*next)) return;
    }
  }
}

// Tokens of the sequences that run on each rank.
std::vector<int64_t> Scheduler::LoadOfRanks() const {
  std::vector<int64_t> loads(num_ranks());
  for (const Sequence* sequence : running_) loads[sequence->rank] += sequence->num_tokens();
  return loads;
}

// What those that run on a rank still need for their tokens, and one more block for each of them.
int64_t Scheduler::BlocksToKeep(int rank) const {
  int64_t num_blocks = 0;
  for (const Sequence* sequence : running_) {
    if (sequence->rank != rank) continue;
    num_blocks += 1 + blocks_.BlocksFor(sequence->num_tokens()) -
                  static_cast<int64_t>(sequence->block_ids.size());
  }
  return num_blocks;
}

// On the first rank that has room, in the order of what each would then have to do.
bool Scheduler::Start(Sequence& sequence) {
  std::vector<std::pair<int64_t, int>> ranked;
  const std::vector<int64_t> loads = LoadOfRanks();
  const bool is_choice = members_.size() > 1;
  for (const int r : members_) {
    // It needs one block at least: this spares the look into the cache while memory is full.
    if (block_pool(r).num_free() <= BlocksToKeep(r)) continue;
    ranked.emplace_back(is_choice ? loads[r] - blocks_.CachedPositions(sequence, r) : 0, r);
  }
  std::sort(ranked.begin(), ranked.end());
  return std::any_of(ranked.begin(), ranked.end(),
                     [&](const auto& load) { return StartOn(sequence, load.second); });
}

// A sequence starts when all its tokens will fit beside what the rank keeps for others: else it
// would soon be preempted. Alone it may.
bool Scheduler::StartOn(Sequence& sequence, int rank) {
  const int64_t num_kept_free = BlocksToKeep(rank);
  sequence.rank = rank;
  blocks_.Reuse(sequence);
  const int64_t num_missing =
      blocks_.BlocksFor(sequence.num_tokens()) - static_cast<int64_t>(sequence.block_ids.size());
  if (num_kept_free > 0 && block_pool(rank).num_free() < num_kept_free + num_missing) {
    blocks_.Free(sequence);
    return false;
  }
  tenants_.Leave(sequence);
  sequence.running = true;
  tenants_.CountRunning(sequence, 1);
  running_.insert(std::upper_bound(running_.begin(), running_.end(), &sequence, RunsBefore()),
                  &sequence);
  return true;
}

// Preempts one sequence of a tenant that is over its share, for one that stays within its own.
bool Scheduler::TakePlaceFor(const Sequence& sequence) {
  const SharedCapacity capacity = CountShares();
  const TenantState& taker = *sequence.tenant;
  if (capacity.total_weight == taker.use.weight) return false;  // nobody else is there
  const int32_t num_blocks = blocks_.BlocksFor(sequence.num_tokens());
  if (!FitsShare(taker.use, capacity, 1, num_blocks)) return false;
  for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
    const TenantState& giver = *(*it)->tenant;
    if (&giver == &taker || !IsOverShare(giver.use, capacity)) continue;
    Preempt(**it);
    return true;
  }
  return false;
}

SharedCapacity Scheduler::CountShares() {
  SharedCapacity capacity{.num_places = max_running_, .num_blocks = num_blocks()};
  for (const auto& state : tenants_.states()) {
    state->use.num_blocks = 0;
    if (state->is_active()) capacity.total_weight += state->use.weight;
  }
  for (const Sequence* sequence : running_) {
    sequence->tenant->use.num_blocks += static_cast<int32_t>(sequence->block_ids.size());
  }
  return capacity;
}

void Scheduler::RankRunning() {
  const SharedCapacity capacity = CountShares();
  for (const auto& state : tenants_.states()) {
    state->over_share = state->is_active() && IsOverShare(state->use, capacity);
  }
  ranked_ = running_;
  std::stable_partition(ranked_.begin(), ranked_.end(),
                        [](const Sequence* sequence) { return !sequence->tenant->over_share; });
}

void Scheduler::PlanDecodes() {
  for (Sequence* const sequence : ranked_) {
    if (!sequence->running || !sequence->decoding()) continue;
    if (MakeRoom(*sequence, 1) == 1) AppendSpan(*sequence, 1);
  }
  plan_.num_decode_tokens = plan_.num_rows();
}

void Scheduler::PlanPrefills() {
  prefills_.clear();
  for (Sequence* const sequence : running_) {
    if (!sequence->decoding()) prefills_.push_back(sequence);
  }
  std::stable_sort(prefills_.begin(), prefills_.end(), [](const Sequence* a, const Sequence* b) {
    return a->tenant != b->tenant && ServedBefore(a->tenant->use, b->tenant->use);
  });
  int32_t budget =
      std::min(prefill_budget_.max_tokens(), options_.max_step_tokens - plan_.num_decode_tokens);
  std::vector<int32_t> rank_budgets = BudgetsOfRanks(budget);
  for (Sequence* const sequence : prefills_) {
    if (budget <= 0) break;
    int32_t& rank_budget = rank_budgets[sequence->rank];
    if (!sequence->running || rank_budget <= 0) continue;
    blocks_.Reuse(*sequence);  // what others have computed since it started
    const int32_t room = MakeRoom(*sequence, ChunkFor(*sequence, std::min(budget, rank_budget)));
    const int32_t end = ChunkEnd(*sequence, sequence->num_computed + room);
    const int32_t num_rows = end - sequence->num_computed;
    blocks_.Shrink(*sequence, num_rows);
    if (num_rows == 0) continue;
    AppendSpan(*sequence, num_rows);
    budget -= num_rows;
    rank_budget -= num_rows;
  }
  plan_.num_prefill_tokens = plan_.num_rows() - plan_.num_decode_tokens;
}

// What each rank may take of a step's rows for prompts: an even part where it has prompts.
std::vector<int32_t> Scheduler::BudgetsOfRanks(int32_t budget) const {
  std::vector<int32_t> budgets(num_ranks());
  for (const Sequence* sequence : prefills_) budgets[sequence->rank] = 1;
  const auto num_busy = static_cast<int32_t>(std::count(budgets.begin(), budgets.end(), 1));
  for (int32_t& rank_budget : budgets) {
    if (rank_budget > 0) rank_budget = (budget + num_busy - 1) / num_busy;
  }
  return budgets;
}

// How many rows of a prompt to plan within `budget`. The first prompt of a step goes as far as its
// next chunk ends whatever the budget: else it never would.
int32_t Scheduler::ChunkFor(const Sequence& sequence, int32_t budget) const {
  const int32_t wanted =
      ChunkEnd(sequence, sequence.num_computed + std::min(sequence.num_uncomputed(), budget));
  const bool is_first = plan_.num_rows() == plan_.num_decode_tokens;
  const int32_t least = is_first ? FirstChunkEnd(sequence) : sequence.num_computed;
  return std::max(wanted, least) - sequence.num_computed;
}

// Unless every row is exact.
void Scheduler::RouteRows() {
  plan_.routed_tokens.clear();
  plan_.policies.clear();
  std::vector<std::pair<const TenantState*, int32_t>> groups;
  for (const PlannedSpan& planned : planned_) {
    const PinnedPolicy* const policy = planned.sequence->request->policy.get();
    if (policy == nullptr || IndexOf(plan_.policies, policy) >= 0) continue;
    plan_.policies.push_back(policy);
  }
  if (plan_.policies.empty()) return;
  for (size_t i = 0; i < planned_.size(); ++i) {
    const Sequence& sequence = *planned_[i].sequence;
    RowPolicy row{.policy_idx = IndexOf(plan_.policies, sequence.request->policy.get())};
    const std::pair<const TenantState*, int32_t> group(sequence.tenant, row.policy_idx);
    if (IndexOf(groups, group) < 0) groups.push_back(group);
    row.group = IndexOf(groups, group);
    const SequenceSpan& span = plan_.spans[i];
    for (int32_t r = 0; r < span.num_rows; ++r) {
      plan_.routed_tokens.push_back(TokenOf(sequence, span.first_position + r, row, grid_.secret));
    }
  }
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
  plan_.span_ranks.push_back(sequence.rank);
  plan_.num_new_prompt_tokens += std::max(std::min(end_position, sequence.num_prompt_tokens) -
                                              std::max(first_position, sequence.num_seen),
                                          0);
  if (sequence.request->output.prompt_logprobs.has_value()) {
    const int32_t end = std::min(end_position, sequence.num_prompt_tokens - 1);
    for (int32_t p = std::max(first_position, sequence.num_seen); p < end; ++p) {
      plan_.logit_rows.push_back({.sequence = sequence.id,
                                  .output_index = sequence.output_index,
                                  .row = first_row + p - first_position,
                                  .position = p,
                                  .prompt_target = sequence.tokens[p + 1]});
    }
  }
  if (end_position == sequence.num_tokens()) {
    plan_.logit_rows.push_back({.sequence = sequence.id,
                                .output_index = sequence.output_index,
                                .row = first_row + num_rows - 1,
                                .position = end_position - 1});
  }
  planned_.push_back(
      {.sequence = &sequence,
       .first_logit_row = first_logit_row,
       .num_logit_rows = static_cast<int32_t>(plan_.logit_rows.size()) - first_logit_row});
  sequence.in_plan = true;
}

int32_t Scheduler::MakeRoom(Sequence& sequence, int32_t num_positions) {
  int32_t room = blocks_.Grow(sequence, num_positions);
  while (room < num_positions) {
    Sequence* const victim = VictimFor(sequence);
    if (victim == nullptr) break;
    Preempt(*victim);
    room = blocks_.Grow(sequence, num_positions);
  }
  return room;
}

// The last in order of those behind `sequence` on its rank. Rows of this step's plan stay; what
// holds nothing gives nothing.
Sequence* Scheduler::VictimFor(const Sequence& sequence) const {
  for (auto it = ranked_.rbegin(); it != ranked_.rend() && *it != &sequence; ++it) {
    if ((*it)->rank == sequence.rank && (*it)->running && !(*it)->in_plan &&
        !(*it)->block_ids.empty()) {
      return *it;
    }
  }
  return nullptr;
}

void Scheduler::Preempt(Sequence& victim) {
  blocks_.Free(victim);
  ++victim.num_preemptions;
  ++num_preemptions_;
  StopRunning(victim);
  tenants_.Return(victim);
}

void Scheduler::StopRunning(Sequence& sequence) {
  running_.erase(std::lower_bound(running_.begin(), running_.end(), &sequence, RunsBefore()));
  sequence.running = false;
  tenants_.CountRunning(sequence, -1);
}

}  // namespace gatehouse
