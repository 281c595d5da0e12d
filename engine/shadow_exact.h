// What bounds cost in quality, measured on the requests that are served. A sample of the bounded
// requests is run again exactly once they have finished, and each distribution that a token was
// drawn from is compared with the exact one after the same tokens. docs/routing.md says how to read
// the numbers.
//
// Replays take the engine's steps only while no request is there: the next one ends a replay's turn
// after the step that runs, takes its memory, and the replay begins again later. No tenant sees
// them: they are no requests, and their blocks are in nobody's prefix cache.
//
// Owned by the engine loop, whose thread alone calls it. Bounded: at most kMaxRuns are kept, from
// admission to the end of the replay; others are skipped, which is counted.
//
//   BoundedRun* run = shadow.Watch(ticket, request);  // for its stream; null: not of the sample
//   shadow.Ended(ticket, status.ok());
//   if (shadow.has_work()) { result = worker.Run(shadow.Plan(), shadow.sampling()); Commit(...); }
//   if (!scheduler.empty()) shadow.Yield();           // before scheduler.Plan
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/bounded_run.h"
#include "engine/scheduler/prefill_budget.h"
#include "engine/scheduler/scheduler.h"
#include "engine/step_stats.h"
#include "engine/worker.h"
#include "kernels/base/keyed_hash.h"

namespace gatehouse {

// KL(exact || bounded) in nats, over some tokens and all others as one: at most that over each
// token for itself. Log-probabilities of the same tokens; what is left to 1 is the others'.
double LumpedKl(std::span<const float> exact, std::span<const float> bounded);

struct ShadowSetup {
  double fraction = 0;  // of the bounded requests, [0, 1]
  HashKey secret{};     // who is of the sample is a hash of the request's id
  int32_t max_step_tokens = 0;
};

class ShadowExact {
 public:
  static constexpr size_t kMaxRuns = 64;
  // What a request that comes while a replay is at it may have to wait for.
  static constexpr double kStepMs = 20;
  // Beyond so many, the gaps between requests are too short for it.
  static constexpr int kMaxInterruptions = 8;

  // Both outlive this.
  ShadowExact(const ShadowSetup& setup, Scheduler& scheduler, StepObserver& observer);

  // A request is admitted. Null: it is not to be kept. Otherwise valid until Ended.
  BoundedRun* Watch(SequenceId ticket, const std::shared_ptr<const Request>& request);
  void Ended(SequenceId ticket, bool finished);  // of any request

  bool has_work() const { return !queue_.empty(); }
  // The next step of the oldest replay, exact rows of it alone. While the scheduler is empty; both
  // valid until Commit.
  const StepPlan& Plan();
  std::span<const RowSampling> sampling() const { return sampling_; }
  void Commit(const absl::StatusOr<StepResult>& result, Duration duration);

  // Gives back the blocks: there are requests.
  void Yield();
  // Nothing is replayed any more.
  void Close();

 private:
  struct Replay {
    std::unique_ptr<const BoundedRun> run;
    ShadowStats stats;
    int num_interruptions = 0;
  };

  bool IsSampled(const Request& request) const;
  void Begin();
  bool Compare(const StepResult& result);
  void EndFirst(bool replayed);
  void Skip(RoutingMode mode);
  void ReturnBlocks();

  const ShadowSetup setup_;
  Scheduler& scheduler_;
  StepObserver& observer_;
  PrefillBudget budget_;
  std::unordered_map<SequenceId, std::unique_ptr<BoundedRun>> watched_;
  std::deque<Replay> queue_;
  bool closed_ = false;

  // Of the first in the queue, while it has blocks.
  std::vector<int32_t> block_ids_;
  std::vector<int32_t> tokens_;  // all but the last, whose row says nothing of it
  int32_t num_computed_ = 0;
  StepPlan plan_;
  std::vector<RowSampling> sampling_;
};

}  // namespace gatehouse
