// A scheduler and a fake device, driven step by step, and the oracle of what a request must yield.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "engine/scheduler/scheduler.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_worker.h"

namespace gatehouse {

inline constexpr int32_t kVocab = 1000;

inline TimePoint At(double seconds) {
  return TimePoint{} + std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9));
}

// A prompt of `num_tokens` whose content depends on `seed`.
inline Request RequestOf(int num_tokens, int max_new_tokens, int seed = 1) {
  Request request;
  for (int i = 0; i < num_tokens; ++i) request.prompt_ids.push_back((seed * 131 + i * 7) % kVocab);
  request.stop.max_new_tokens = max_new_tokens;
  return request;
}

struct Generated {
  std::vector<int32_t> tokens;
  std::set<int32_t> new_positions;  // each was reported once
  std::vector<int32_t> prompt_targets;
  std::optional<FinishReason> finish_reason;
  absl::Status status;
  bool ended = false;
  int32_t num_preemptions = 0;
  int32_t num_cached_prompt_tokens = 0;
};

// A scheduler and a fake device, driven step by step; the invariants are checked after each.
class SchedulerHarness {
 public:
  explicit SchedulerHarness(SchedulerSetup setup, FakeWorkerOptions faults = {})
      : max_step_tokens_(setup.options.max_step_tokens),
        worker_(WorkerOptionsOf(setup, std::move(faults))),
        scheduler_(setup) {}

  SequenceId Add(Request request, double arrival = 0) {
    const auto shared = std::make_shared<const Request>(std::move(request));
    scheduler_.Add(next_id_, shared, At(arrival));
    const SequenceId ticket = next_id_;
    next_id_ += static_cast<SequenceId>(shared->sampling.n);
    return ticket;
  }

  // One Plan, Run and Commit; false when there was nothing to do. Ranks that were lost in the last
  // leave first.
  bool Step(Duration duration = Duration(0)) {
    if (worker_.needs_regroup()) {
      const absl::StatusOr<Regrouped> regrouped = worker_.Regroup();
      scheduler_.SetMembers(regrouped->membership.members, regrouped->emptied);
      EXPECT_EQ(scheduler_.CheckInvariants(), absl::OkStatus());
    }
    const StepPlan& plan = scheduler_.Plan();
    if (plan.empty()) return false;
    EXPECT_LE(plan.num_rows(), max_step_tokens_);
    EXPECT_EQ(plan.num_rows(), plan.num_decode_tokens + plan.num_prefill_tokens);
    last_plan_ = plan;
    std::vector<RowSampling> sampling(plan.logit_rows.size());
    for (size_t i = 0; i < sampling.size(); ++i) {
      sampling[i].forced_id = plan.logit_rows[i].prompt_target;
    }
    const absl::StatusOr<StepResult> result = worker_.Run(plan, sampling);
    if (absl::IsUnavailable(result.status())) {
      scheduler_.Abandon();
      EXPECT_EQ(scheduler_.CheckInvariants(), absl::OkStatus());
      ++num_abandoned_;
      return true;
    }
    StepOutcome outcome{.status = result.status(), .duration = duration};
    if (result.ok()) {
      outcome.samples = result->samples;
      outcome.row_failed = result->row_failed;
    }
    for (const SequenceUpdate& update : scheduler_.Commit(outcome)) Record(update, outcome);
    EXPECT_EQ(scheduler_.CheckInvariants(), absl::OkStatus());
    return true;
  }

  void RunToTheEnd() {
    for (int step = 0; Step(); ++step) ASSERT_LT(step, 100000) << "no end in sight";
  }

  Scheduler& scheduler() { return scheduler_; }
  int num_abandoned() const { return num_abandoned_; }
  const StepPlan& last_plan() const { return last_plan_; }
  Generated& of(SequenceId id) { return generated_[id]; }

 private:
  static FakeWorkerOptions WorkerOptionsOf(const SchedulerSetup& setup, FakeWorkerOptions options) {
    options.num_ranks = setup.num_ranks;
    options.num_blocks = setup.num_blocks;
    options.block_tokens = setup.block_tokens;
    options.vocab_size = kVocab;
    return options;
  }

  void Record(const SequenceUpdate& update, const StepOutcome& outcome) {
    Generated& of = generated_[update.sequence];
    EXPECT_FALSE(of.ended);
    of.status = update.status;
    of.finish_reason = update.finish_reason;
    of.ended = !update.status.ok() || update.finish_reason.has_value();
    of.num_preemptions = update.num_preemptions;
    of.num_cached_prompt_tokens = update.num_cached_prompt_tokens;
    for (int32_t i = 0; i < update.num_new_rows; ++i) {
      const bool is_new = of.new_positions.insert(update.first_new_position + i).second;
      EXPECT_TRUE(is_new) << "position " << update.first_new_position + i << " reported twice";
      EXPECT_EQ(last_plan_.positions[update.first_new_row + i], update.first_new_position + i);
    }
    for (int32_t i = 0; i < update.num_prompt_targets; ++i) {
      of.prompt_targets.push_back(outcome.samples[update.first_logit_row + i].token_id);
    }
    if (update.sample_idx >= 0) {
      of.tokens.push_back(outcome.samples[update.sample_idx].token_id);
      EXPECT_EQ(update.num_generated_tokens, static_cast<int32_t>(of.tokens.size()));
    }
  }

  const int32_t max_step_tokens_;
  FakeWorker worker_;
  Scheduler scheduler_;
  StepPlan last_plan_;
  int num_abandoned_ = 0;
  SequenceId next_id_ = 1;
  std::map<SequenceId, Generated> generated_;
};

// What `request` must yield, without any scheduler: the oracle.
inline std::vector<int32_t> ExpectedTokens(const Request& request) {
  std::vector<int32_t> tokens = request.prompt_ids;
  for (int i = 0; i < request.stop.max_new_tokens; ++i) {
    tokens.push_back(FakeWorker::Choose(tokens, kVocab, {}).token_id);
  }
  return {tokens.begin() + static_cast<int64_t>(request.prompt_ids.size()), tokens.end()};
}

inline SchedulerSetup SetupOf(SchedulerOptions options, int32_t num_blocks) {
  return {.options = options, .num_blocks = num_blocks};
}

}  // namespace gatehouse
