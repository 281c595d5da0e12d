// Decides what each step runs, and takes back what it yielded. Pure: no thread, no clock, no
// device; tests drive it by hand.
//
// Owner: the engine loop, the only thread that calls it. It owns the sequences and the block pool.
// One plan is in flight at a time: between Plan and Commit nothing else is called. Nothing can
// fail; a wrong call is a fault of ours and aborts.
//
//   scheduler.Add(ticket, request, now);   // owns the ids ticket .. ticket + n - 1
//   for (SequenceId late : scheduler.TakeExpired(now)) ...   // gone, blocks freed
//   const StepPlan& plan = scheduler.Plan();  // empty only when there is no sequence
//   for (const SequenceUpdate& update : scheduler.Commit(RunOnDevice(plan))) ...
//
// Outputs: a request with n > 1 begins with one sequence. When that has yielded its first token,
// the prompt is in the cache and the others start there: each computes only what follows the
// prompt's last full block.
//
// Policy
//   Order     within a tenant by turn: arrival, put off by kPriorityDelay for each step of priority
//             below HIGH. So a higher priority goes first, and nobody waits behind it for longer.
//             Between tenants by what they had for their weight (fair_share.h).
//   A step    every decoding sequence one row, then prefill chunks in that order, within
//             max_step_tokens and what PrefillBudget allows.
//   Places    a tenant that is first in line and within its share of places and blocks need not
//             wait for one that is over its own: that one's youngest sequence is preempted.
//   Blocks    taken when a step needs them. When there are none, a sequence that is not in the plan
//             loses its blocks, waits, and is computed again: the youngest of a tenant over its
//             share, else the youngest. A sequence never takes from one that stands before it
//             (tenants over their share stand last, then by turn), nor from one that has rows in
//             the step already: it sits out. Decodes come first, so others may hold the blocks that
//             the first needs for a chunk of its prompt; every step still computes something, and
//             whoever it was comes nearer to its end.
//   Ranks     a sequence starts on the rank that has the least to compute and to hold with it, what
//             the rank's cache has of it taken off; until it ends or is preempted it stays. Prompts
//             on several ranks share a step's budget evenly, so that none waits for another.
//             When a rank is lost, its sequences are preempted.
//   Chunks    of a bounded prompt end where its mode says (row_routing.h): a sequence that does not
//             come so far in what is left of the step sits out, but the first always gets there.
//   Prefixes  full blocks that were computed are kept until their memory is needed. A sequence that
//             begins with the same tokens, in the same tenant and salt, takes them over: a
//             preempted one its own.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/engine_config.h"
#include "engine/request/request.h"
#include "engine/request/token_sink.h"
#include "engine/scheduler/block_tables.h"
#include "engine/scheduler/prefill_budget.h"
#include "engine/scheduler/row_routing.h"
#include "engine/scheduler/sequence.h"
#include "engine/scheduler/step_plan.h"
#include "engine/scheduler/tenant_queues.h"
#include "kernels/backend.h"
#include "kernels/base/clock.h"

namespace gatehouse {

// What the device made of a plan.
struct StepOutcome {
  absl::Status status;                  // not OK: the whole step failed, the spans are empty
  std::span<const RowSample> samples;   // [plan.logit_rows.size()]
  std::span<const uint8_t> row_failed;  // [plan.num_rows()]
  // [plan.num_rows()]: bounds moved, dropped or forced a pair of the row in some layer. Empty:
  // none.
  std::span<const uint8_t> row_touched;
  Duration duration{};
};

// What a step did for one of its sequences. With a `finish_reason` or a status that is not OK the
// sequence has ended: its blocks are free and its id is unknown from now on. Others of its request
// go on.
struct SequenceUpdate {
  SequenceId sequence = 0;
  int32_t output_index = 0;
  absl::Status status;
  std::optional<FinishReason> finish_reason;
  // Rows of the step that were computed for the first time: [first_new_row, + num_new_rows), for
  // the positions from first_new_position. Rows computed again after a preemption are not among
  // them.
  int32_t first_new_row = 0;
  int32_t num_new_rows = 0;
  int32_t first_new_position = 0;
  // Entries of plan.logit_rows: one for each prompt target, in order, then the generated token's.
  int32_t first_logit_row = 0;
  int32_t num_prompt_targets = 0;
  int32_t sample_idx = -1;  // the generated token's entry, -1: none
  int32_t num_generated_tokens = 0;
  int32_t num_cached_prompt_tokens = 0;
  int32_t num_preemptions = 0;

  SequenceId ticket() const { return sequence - output_index; }
};

struct SchedulerSetup {
  SchedulerOptions options;
  int num_ranks = 1;
  int32_t num_blocks = 0;  // of each rank
  int32_t block_tokens = 16;
  std::vector<int32_t> eos_token_ids;
  uint64_t hash_seed = 0;    // of the prefix cache; changes no result
  HashKey routing_secret{};  // ties and home devices of bounded routing; the same replays them
};

class Scheduler {
 public:
  // What one step of priority is worth: long enough to matter, short enough that LOW is served.
  static constexpr Duration kPriorityDelay = std::chrono::seconds(10);

  explicit Scheduler(const SchedulerSetup& setup);
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // `request` is valid (ValidateRequest) and fits: prompt + max_new_tokens <=
  // max_sequence_tokens().
  void Add(SequenceId ticket, const std::shared_ptr<const Request>& request, TimePoint arrival);
  // Ends all outputs of a request at once and frees their blocks. False when it is not there.
  bool Remove(SequenceId ticket);
  // The same for one output. No-op when it has ended.
  void RemoveOutput(SequenceId id);
  // Removes every request whose deadline is `now` or earlier, waiting or running.
  std::vector<SequenceId> TakeExpired(TimePoint now);

  // Valid until the next Plan; its block tables until Commit.
  const StepPlan& Plan();
  // One update for each sequence of the plan, in its order; valid until the next Commit.
  std::span<const SequenceUpdate> Commit(const StepOutcome& outcome);

  // Between Commit and Plan: what runs on the rank gives its blocks back and waits, in its turn.
  void PreemptAll(int rank);
  // Instead of Commit, where the step came to nothing and may be made again: what was in it waits,
  // in its turn, and finds in the cache what earlier steps have computed.
  void Abandon();
  // Between Commit and Plan: no sequence runs on other ranks than these (ascending) from now on.
  // The caches of `emptied` hold nothing: what ran on them is computed again. All that are not
  // members are among them.
  void SetMembers(const std::vector<int>& members, std::span<const int> emptied);

  // Blocks for steps that are not its own, while it is empty: they hold what was used least, or
  // nothing. All come back before it plans for a sequence again.
  std::vector<int32_t> Lend(int64_t num_tokens);
  void TakeBack(std::span<const int32_t> block_ids) { blocks_.TakeBack(block_ids); }

  int32_t num_running() const { return static_cast<int32_t>(running_.size()); }
  int32_t num_waiting() const { return tenants_.num_waiting(); }
  int64_t num_waiting_tokens() const { return tenants_.num_waiting_tokens(); }
  const PriorityCounts& priority_counts() const { return tenants_.priority_counts(); }
  std::span<const std::unique_ptr<TenantState>> tenants() const { return tenants_.states(); }
  bool empty() const { return requests_.empty(); }
  int32_t num_preemptions() const { return num_preemptions_; }  // by the last Plan
  // Prompt tokens that the last Plan's sequences found in the cache when they started first.
  int64_t num_cached_prompt_tokens() const { return num_cached_prompt_tokens_; }
  const BlockPool& block_pool(int rank = 0) const { return blocks_.pool(rank); }
  int num_ranks() const { return blocks_.num_ranks(); }
  int32_t num_blocks() const {  // of the ranks that are there
    return static_cast<int32_t>(members_.size()) * block_pool().num_blocks();
  }
  int32_t num_used_blocks() const;
  int64_t max_sequence_tokens() const {
    return int64_t{block_pool().num_blocks()} * blocks_.block_tokens();
  }

  // Every block is accounted for and every sequence stands in one place: INTERNAL names the first
  // fault. O(blocks). Between Commit and Plan only.
  absl::Status CheckInvariants() const;

 private:
  struct OpenRequest {
    std::shared_ptr<const Request> request;
    TenantState* tenant = nullptr;
    TimePoint turn{};
    int32_t num_open = 0;  // outputs that have not ended, those to come counted
  };
  struct PlannedSpan {
    Sequence* sequence = nullptr;
    int32_t first_logit_row = 0;
    int32_t num_logit_rows = 0;
  };

  Sequence& AddOutput(SequenceId ticket, const OpenRequest& open, int32_t output_index);
  void AddOtherOutputs(SequenceId ticket);
  void StartWaiting();
  bool Start(Sequence& sequence);
  bool StartOn(Sequence& sequence, int rank);
  int64_t BlocksToKeep(int rank) const;
  std::vector<int64_t> LoadOfRanks() const;
  bool TakePlaceFor(const Sequence& sequence);
  SharedCapacity CountShares();
  void RankRunning();
  void PlanDecodes();
  void PlanPrefills();
  std::vector<int32_t> BudgetsOfRanks(int32_t budget) const;
  int32_t ChunkFor(const Sequence& sequence, int32_t budget) const;
  void AppendSpan(Sequence& sequence, int32_t num_rows);
  void RouteRows();
  // Takes blocks for `num_positions` positions, preempting other sequences if need be; returns
  // how many positions there is room for, which may be fewer.
  int32_t MakeRoom(Sequence& sequence, int32_t num_positions);
  Sequence* VictimFor(const Sequence& sequence) const;
  void Preempt(Sequence& victim);
  void StopRunning(Sequence& sequence);

  SequenceUpdate CommitSpan(int32_t span_idx, const StepOutcome& outcome);
  static void NoteTouched(const SequenceSpan& span, std::span<const uint8_t> row_touched,
                          Sequence& sequence);
  absl::Status StatusOfSpan(int32_t span_idx, const StepOutcome& outcome) const;
  std::optional<FinishReason> AppendToken(Sequence& sequence, int32_t token_id) const;

  void Erase(Sequence& sequence);
  absl::Status CheckSequence(const Sequence& sequence) const;

  const SchedulerOptions options_;
  const int32_t max_running_;
  const std::vector<int32_t> eos_token_ids_;

  BlockTables blocks_;
  std::vector<int> members_;  // ranks that sequences run on, ascending
  const RoutingGrid grid_;
  PrefillBudget prefill_budget_;
  std::unordered_map<SequenceId, OpenRequest> requests_;  // by ticket
  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  std::vector<Sequence*> running_;  // by turn
  TenantQueues tenants_;
  std::set<std::pair<TimePoint, SequenceId>> deadlines_;  // of requests that have one

  // Of the plan in flight; the buffers are kept from step to step.
  bool in_flight_ = false;
  int32_t num_preemptions_ = 0;
  int64_t num_cached_prompt_tokens_ = 0;
  std::vector<Sequence*> ranked_;    // those running when the plan began, in the order of decodes
  std::vector<Sequence*> prefills_;  // of them, in their order
  StepPlan plan_;
  std::vector<PlannedSpan> planned_;  // [plan_.spans.size()]
  std::vector<SequenceUpdate> updates_;
};

}  // namespace gatehouse
