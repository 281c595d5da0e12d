// Decides what each step runs, and takes back what it yielded. Pure: no thread, no clock, no
// device; tests drive it by hand.
//
// Owner: the engine loop, the only thread that calls it. It owns the sequences and the block pool.
// One plan is in flight at a time: between Plan and Commit nothing else is called. Nothing can
// fail; a wrong call is a fault of ours and aborts.
//
//   scheduler.Add(id, request, now);
//   for (SequenceId late : scheduler.TakeExpired(now)) ...   // gone, blocks freed
//   const StepPlan& plan = scheduler.Plan();  // empty only when there is no sequence
//   for (const SequenceUpdate& update : scheduler.Commit(RunOnDevice(plan))) ...
//
// Policy
//   Order     by turn: arrival, put off by kPriorityDelay for each step of priority below HIGH.
//             So a higher priority goes first, and nobody waits behind it for longer than that.
//   A step    every decoding sequence one row, then prefill chunks first come first served, within
//             max_step_tokens and what PrefillBudget allows.
//   Blocks    taken when a step needs them. When there are none, the youngest sequence that is not
//             in the plan loses its blocks to an older one, waits, and is computed again. A
//             sequence never takes from an older one, nor from one that has rows in the step
//             already: it sits out. Decodes come first, so younger ones may hold the blocks that
//             the oldest needs for a chunk of its prompt; every step still computes something, and
//             whoever it was comes nearer to its end.
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
#include "engine/scheduler/sequence.h"
#include "engine/scheduler/step_plan.h"
#include "kernels/backend.h"
#include "kernels/base/clock.h"

namespace gatehouse {

// What the device made of a plan.
struct StepOutcome {
  absl::Status status;                  // not OK: the whole step failed, the spans are empty
  std::span<const RowSample> samples;   // [plan.logit_rows.size()]
  std::span<const uint8_t> row_failed;  // [plan.num_rows()]
  Duration duration{};
};

// What a step did for one of its sequences. With a `finish_reason` or a status that is not OK the
// sequence has ended: its blocks are free and its id is unknown from now on.
struct SequenceUpdate {
  SequenceId sequence = 0;
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
};

struct SchedulerSetup {
  SchedulerOptions options;
  int32_t num_blocks = 0;
  int32_t block_tokens = 16;
  std::vector<int32_t> eos_token_ids;
  uint64_t hash_seed = 0;  // of the prefix cache; changes no result
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
  void Add(SequenceId id, std::shared_ptr<const Request> request, TimePoint arrival);
  // Ends a sequence at once and frees its blocks. False when there is none of that id.
  bool Remove(SequenceId id);
  // Removes every sequence whose deadline is `now` or earlier, waiting or running.
  std::vector<SequenceId> TakeExpired(TimePoint now);

  // Valid until the next Plan; its block tables until Commit.
  const StepPlan& Plan();
  // One update for each sequence of the plan, in its order; valid until the next Commit.
  std::span<const SequenceUpdate> Commit(const StepOutcome& outcome);

  int32_t num_running() const { return static_cast<int32_t>(running_.size()); }
  int32_t num_waiting() const { return static_cast<int32_t>(waiting_.size()); }
  int64_t num_waiting_tokens() const { return num_waiting_tokens_; }
  bool empty() const { return sequences_.empty(); }
  int32_t num_preemptions() const { return num_preemptions_; }  // by the last Plan
  // Prompt tokens that the last Plan's sequences found in the cache when they started first.
  int64_t num_cached_prompt_tokens() const { return num_cached_prompt_tokens_; }
  const BlockPool& block_pool() const { return blocks_.pool(); }
  int64_t max_sequence_tokens() const {
    return int64_t{block_pool().num_blocks()} * blocks_.block_tokens();
  }

  // Every block is accounted for and every sequence stands in one place: INTERNAL names the first
  // fault. O(blocks). Between Commit and Plan only.
  absl::Status CheckInvariants() const;

 private:
  struct PlannedSpan {
    Sequence* sequence = nullptr;
    int32_t first_logit_row = 0;
    int32_t num_logit_rows = 0;
  };

  void StartWaiting();
  bool StartNext(int64_t& num_promised);
  void PlanDecodes();
  void PlanPrefills();
  void AppendSpan(Sequence& sequence, int32_t num_rows);
  // Takes blocks for `num_positions` positions, preempting younger sequences if need be; returns
  // how many positions there is room for, which may be fewer.
  int32_t MakeRoom(Sequence& sequence, int32_t num_positions);
  bool PreemptYoungerThan(const Sequence& sequence);

  SequenceUpdate CommitSpan(int32_t span_idx, const StepOutcome& outcome);
  absl::Status StatusOfSpan(int32_t span_idx, const StepOutcome& outcome) const;
  std::optional<FinishReason> AppendToken(Sequence& sequence, int32_t token_id) const;

  void Erase(Sequence& sequence);
  absl::Status CheckSequence(const Sequence& sequence) const;

  const SchedulerOptions options_;
  const int32_t max_running_;
  const std::vector<int32_t> eos_token_ids_;

  BlockTables blocks_;
  PrefillBudget prefill_budget_;
  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  std::vector<Sequence*> running_;                        // by turn
  std::set<Sequence*, RunsBefore> waiting_;               // by turn
  std::set<std::pair<TimePoint, SequenceId>> deadlines_;  // of sequences that have one
  int64_t num_waiting_tokens_ = 0;

  // Of the plan in flight; the buffers are kept from step to step.
  bool in_flight_ = false;
  int32_t num_preemptions_ = 0;
  int64_t num_cached_prompt_tokens_ = 0;
  StepPlan plan_;
  std::vector<PlannedSpan> planned_;  // [plan_.spans.size()]
  std::vector<SequenceUpdate> updates_;
};

}  // namespace gatehouse
