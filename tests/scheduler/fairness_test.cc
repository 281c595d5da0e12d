// Who gets what when tenants want more than there is: on a simulated clock, where a step costs what
// its rows cost.
#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/scheduler/scheduler.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_worker.h"

namespace gatehouse {
namespace {

using std::chrono::milliseconds;

std::shared_ptr<const Tenant> TenantOf(std::string name, int32_t weight) {
  return std::make_shared<const Tenant>(Tenant{.name = std::move(name), .weight = weight});
}

struct Shape {
  int num_prompt_tokens = 0;
  int num_new_tokens = 0;
};

// A machine with one row a millisecond in decodes and ten in prompts, and a fixed part.
class Simulation {
 public:
  explicit Simulation(const SchedulerSetup& setup)
      : worker_({.num_blocks = setup.num_blocks, .block_tokens = setup.block_tokens}),
        scheduler_(setup) {}

  SequenceId Submit(const std::shared_ptr<const Tenant>& tenant, const Shape& shape) {
    Request request;
    const SequenceId ticket = next_ticket_++;
    // No two prompts begin alike: the cache is another matter.
    for (int i = 0; i < shape.num_prompt_tokens; ++i) {
      request.prompt_ids.push_back(static_cast<int32_t>((ticket * 7919 + i) % 1000));
    }
    request.stop.max_new_tokens = shape.num_new_tokens;
    request.tenant = tenant;
    scheduler_.Add(ticket, std::make_shared<const Request>(std::move(request)), now_);
    submitted_[ticket] = {tenant->name, now_, shape.num_prompt_tokens};
    return ticket;
  }

  // One step; counts what each tenant was served.
  void Step() {
    const StepPlan& plan = scheduler_.Plan();
    if (plan.empty()) {
      now_ += milliseconds(1);
      return;
    }
    const Duration duration = milliseconds(2) + milliseconds(plan.num_decode_tokens) +
                              milliseconds(plan.num_prefill_tokens) / 10;
    now_ += duration;
    num_preemptions_ += scheduler_.num_preemptions();
    const std::vector<RowSampling> sampling(plan.logit_rows.size());
    const StepResult result = *worker_.Run(plan, sampling);
    for (const SequenceUpdate& update : scheduler_.Commit(
             {.samples = result.samples, .row_failed = result.row_failed, .duration = duration})) {
      const auto& [tenant, submitted, num_prompt_tokens] = submitted_.at(update.ticket());
      const int32_t num_new_prompt_rows =
          std::min(update.num_new_rows, num_prompt_tokens - update.first_new_position);
      num_served_[tenant] += std::max(num_new_prompt_rows, 0) + (update.sample_idx >= 0);
      if (update.sample_idx >= 0) {
        ++num_generated_[tenant];
        if (update.num_generated_tokens == 1) first_token_[tenant].push_back(now_ - submitted);
      }
      if (update.finish_reason.has_value()) --num_open_[tenant];
    }
    if (++num_steps_ % 32 != 0) return;
    EXPECT_EQ(scheduler_.CheckInvariants(), absl::OkStatus());
  }

  // Keeps `count` requests of the tenant open.
  void Flood(const std::shared_ptr<const Tenant>& tenant, const Shape& shape, int count) {
    for (int& open = num_open_[tenant->name]; open < count; ++open) Submit(tenant, shape);
  }

  TimePoint now() const { return now_; }
  Scheduler& scheduler() { return scheduler_; }
  // Prompt tokens computed and tokens generated, recomputed ones not counted.
  int64_t num_served(const std::string& tenant) { return num_served_[tenant]; }
  int64_t num_generated(const std::string& tenant) { return num_generated_[tenant]; }
  int64_t num_preemptions() const { return num_preemptions_; }
  // The 99th percentile, and the worst below a hundred.
  Duration FirstTokenP99(const std::string& tenant) {
    std::vector<Duration>& times = first_token_[tenant];
    std::sort(times.begin(), times.end());
    return times.at((times.size() * 99 + 99) / 100 - 1);
  }
  size_t num_first_tokens(const std::string& tenant) { return first_token_[tenant].size(); }

 private:
  FakeWorker worker_;
  Scheduler scheduler_;
  TimePoint now_{};
  SequenceId next_ticket_ = 1;
  struct Submitted {
    std::string tenant;
    TimePoint time{};
    int32_t num_prompt_tokens = 0;
  };
  std::map<SequenceId, Submitted> submitted_;
  std::map<std::string, int> num_open_;
  std::map<std::string, int64_t> num_generated_;
  std::map<std::string, int64_t> num_served_;
  std::map<std::string, std::vector<Duration>> first_token_;
  int64_t num_preemptions_ = 0;
  int num_steps_ = 0;
};

SchedulerSetup SetupOf(int32_t max_sequences, int32_t num_blocks) {
  return {.options = {.max_sequences = max_sequences, .max_step_tokens = 256, .max_step_ms = 20},
          .num_blocks = num_blocks};
}

struct OverloadCase {
  std::string name;
  int32_t max_sequences = 16;
  int32_t num_blocks = 512;
  Shape heavy, light;  // of the tenants with weight 3 and 1
};

class OverloadTest : public testing::TestWithParam<OverloadCase> {};

INSTANTIATE_TEST_SUITE_P(
    Loads, OverloadTest,
    testing::Values(
        OverloadCase{.name = "AlikeRequests", .heavy = {40, 60}, .light = {40, 60}},
        OverloadCase{.name = "ShortAgainstLong", .heavy = {20, 10}, .light = {60, 200}},
        OverloadCase{.name = "LongAgainstShort", .heavy = {60, 200}, .light = {20, 10}},
        OverloadCase{
            .name = "LittleMemory", .num_blocks = 60, .heavy = {40, 60}, .light = {40, 60}},
        OverloadCase{
            .name = "FewPlaces", .max_sequences = 3, .heavy = {40, 60}, .light = {40, 60}}),
    [](const auto& info) { return info.param.name; });

TEST_P(OverloadTest, WeightsThreeAndOneGetTokensThreeToOne) {
  const OverloadCase& load = GetParam();
  Simulation simulation(SetupOf(load.max_sequences, load.num_blocks));
  const auto heavy = TenantOf("heavy", 3), light = TenantOf("light", 1);
  int64_t heavy_before = 0, light_before = 0;
  constexpr int kSteps = 3000;
  for (int step = 0; step < kSteps; ++step) {
    if (step == kSteps / 10) {
      heavy_before = simulation.num_served("heavy");
      light_before = simulation.num_served("light");
    }
    simulation.Flood(heavy, load.heavy, 40);
    simulation.Flood(light, load.light, 40);
    simulation.Step();
  }
  const auto heavy_tokens = static_cast<double>(simulation.num_served("heavy") - heavy_before);
  const auto light_tokens = static_cast<double>(simulation.num_served("light") - light_before);
  EXPECT_NEAR(heavy_tokens / light_tokens, 3, 0.3);
  EXPECT_GT(light_tokens, 1000);
}

// The other's requests take a place at once from the flood, whose own is not worse than fair.
TEST(FloodTest, ChangesTheOthersFirstTokenByLessThanAStepsBudget) {
  const auto quiet = TenantOf("quiet", 1), flood = TenantOf("flood", 1);
  const SchedulerSetup setup = SetupOf(16, 512);
  const auto first_token_p99 = [&](bool flooded) {
    Simulation simulation(setup);
    TimePoint next_chat = simulation.now() + milliseconds(500);
    while (simulation.num_first_tokens("quiet") < 200) {
      if (flooded) simulation.Flood(flood, {200, 300}, 500);
      for (; next_chat <= simulation.now(); next_chat += milliseconds(331)) {
        simulation.Submit(quiet, {48, 24});
      }
      simulation.Step();
    }
    EXPECT_EQ(flooded, simulation.num_preemptions() > 0);
    return simulation.FirstTokenP99("quiet");
  };
  const Duration added = first_token_p99(true) - first_token_p99(false);
  EXPECT_LT(ToSeconds(added) * 1e3, setup.options.max_step_ms);
}

TEST(FairnessTest, ATenantAloneHasEverything) {
  Simulation simulation(SetupOf(16, 512));
  const auto only = TenantOf("only", 1);
  simulation.Flood(only, {20, 50}, 40);
  for (int step = 0; step < 5; ++step) simulation.Step();
  EXPECT_EQ(simulation.scheduler().num_running(), 16);
}

TEST(FairnessTest, WhatATenantDidNotUseWhileItWasAwayIsGone) {
  Simulation simulation(SetupOf(16, 512));
  const auto busy = TenantOf("busy", 1), late = TenantOf("late", 1);
  for (int step = 0; step < 1000; ++step) {
    simulation.Flood(busy, {20, 50}, 40);
    simulation.Step();
  }
  const int64_t busy_before = simulation.num_generated("busy");
  for (int step = 0; step < 1000; ++step) {
    simulation.Flood(busy, {20, 50}, 40);
    simulation.Flood(late, {20, 50}, 40);
    simulation.Step();
  }
  const double ratio = static_cast<double>(simulation.num_generated("busy") - busy_before) /
                       static_cast<double>(simulation.num_generated("late"));
  EXPECT_NEAR(ratio, 1, 0.1);
}

TEST(FairnessTest, ATenantRunsNoMoreThanItsLimitAndHoldsNobodyUp) {
  Simulation simulation(SetupOf(16, 512));
  const auto limited = std::make_shared<const Tenant>(
      Tenant{.name = "limited", .weight = 1000, .max_running_requests = 2});
  const auto other = TenantOf("other", 1);
  simulation.Flood(limited, {20, 50}, 10);
  simulation.Flood(other, {20, 50}, 10);
  for (int step = 0; step < 40; ++step) {
    simulation.Step();
    for (const auto& state : simulation.scheduler().tenants()) {
      if (state->tenant.name != "limited") continue;
      EXPECT_LE(state->use.num_running, 2);
    }
  }
  EXPECT_EQ(simulation.scheduler().num_running(), 12);
}

TEST(FairnessTest, TakesOnlyFromATenantOverItsShareAndOnlyUpToItsOwn) {
  Simulation simulation(SetupOf(8, 512));
  const auto first = TenantOf("first", 1), second = TenantOf("second", 1);
  simulation.Flood(first, {20, 400}, 20);
  for (int step = 0; step < 10; ++step) simulation.Step();
  EXPECT_EQ(simulation.num_preemptions(), 0);
  simulation.Flood(second, {20, 400}, 20);
  for (int step = 0; step < 100; ++step) simulation.Step();
  EXPECT_EQ(simulation.num_preemptions(), 4);
  for (const auto& state : simulation.scheduler().tenants()) {
    EXPECT_EQ(state->use.num_running, 4) << state->tenant.name;
  }
}

TEST(FairnessTest, MemoryIsTakenFromWhoHoldsMoreThanItsShare) {
  // 64 blocks: the first tenant's four sequences want 20 each, the second's one wants 10.
  Simulation simulation(SetupOf(8, 64));
  const auto first = TenantOf("first", 1), second = TenantOf("second", 1);
  for (int i = 0; i < 4; ++i) simulation.Submit(first, {150, 160});
  for (int step = 0; step < 20; ++step) simulation.Step();
  const SequenceId small = simulation.Submit(second, {100, 60});
  while (simulation.num_generated("second") < 60) simulation.Step();
  EXPECT_EQ(small, 5u);
  EXPECT_GT(simulation.num_preemptions(), 0);
}

}  // namespace
}  // namespace gatehouse
