#include "engine/group_worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "engine/comm/in_process.h"
#include "engine/loaded_model.h"
#include "engine/local_rank.h"
#include "engine/rebalancer.h"
#include "engine/scheduler/scheduler.h"
#include "kernels/backend.h"
#include "kernels/base/check.h"

namespace gatehouse {
namespace {

std::vector<std::string> GoldenModels() {
  std::vector<std::string> dirs;
  for (const auto& entry :
       std::filesystem::directory_iterator(GATEHOUSE_SOURCE_DIR "/tests/golden")) {
    if (std::filesystem::exists(entry.path() / "config.json")) dirs.push_back(entry.path());
  }
  return dirs;
}

// Prompts in chunks, decodes and both in one step.
TEST(GroupWorkerTest, EveryRouteOfARealModelIsWhole) {
  for (const std::string& dir : GoldenModels()) {
    SCOPED_TRACE(dir);
    EngineConfig config;
    config.model.model_dir = dir;
    config.scheduler = {.max_sequences = 4, .max_step_tokens = 24};
    auto backends = MakeBackends("cpu", {.num_threads = 2}, 1);
    ASSERT_TRUE(backends.ok()) << backends.status();
    absl::StatusOr<LoadedModel> model = LoadModel(config, *std::move(backends));
    ASSERT_TRUE(model.ok()) << model.status();
    Scheduler scheduler({.options = model->config.scheduler,
                         .num_blocks = static_cast<int32_t>(model->memory_plan.num_kv_blocks)});
    std::mt19937 random(3);
    for (SequenceId id = 0; id < 6; ++id) {
      auto request = std::make_shared<Request>();
      for (int i = 0; i < 10 + 5 * static_cast<int>(id); ++i) {
        request->prompt_ids.push_back(
            static_cast<int32_t>(random() % static_cast<uint32_t>(model->description.vocab_size)));
      }
      request->stop.max_new_tokens = 8;
      scheduler.Add(id, request, TimePoint{});
    }
    while (!scheduler.empty()) {
      const StepPlan& plan = scheduler.Plan();
      const std::vector<RowSampling> sampling(plan.logit_rows.size());
      const absl::StatusOr<StepResult> result = model->worker->Run(plan, sampling);
      ASSERT_TRUE(result.ok()) << result.status();
      EXPECT_EQ(result->routes.size(), model->description.moe_layers.size());
      for (const RoutePlan& route : result->routes) {
        EXPECT_EQ(route.num_rows, plan.num_rows());
        EXPECT_EQ(route.num_pairs(), plan.num_rows() * model->description.top_k);
        EXPECT_EQ(route.Validate(), absl::OkStatus());
      }
      scheduler.Commit({.samples = result->samples, .row_failed = result->row_failed});
    }
  }
}

// A rank of this process that is lost in the middle of a step: the others wait for it in vain.
class MortalRank final : public RankPeer {
 public:
  struct Fate {
    std::atomic<bool> up = true;
    std::atomic<int64_t> num_returns = 0;
    std::atomic<int> num_joins_to_fail = 0;
  };

  MortalRank(std::unique_ptr<RankPeer> rank, std::shared_ptr<Fate> fate)
      : rank_(std::move(rank)), fate_(std::move(fate)) {}
  absl::Status Join(const Membership& membership) override {
    if (fate_->num_joins_to_fail > 0) {
      --fate_->num_joins_to_fail;
      return absl::UnavailableError("it was not heard");
    }
    return rank_->Join(membership);
  }
  void Place(int moe_layer_idx, const ExpertPlacement& placement) override {
    rank_->Place(moe_layer_idx, placement);
  }
  absl::StatusOr<RankResult> Run(const RankStep& step) override {
    if (!fate_->up) return absl::UnavailableError("it has died");
    return rank_->Run(step);
  }
  void Lose(int rank) override { rank_->Lose(rank); }
  bool is_up() const override { return fate_->up; }
  int64_t num_returns() const override { return fate_->num_returns; }

 private:
  const std::unique_ptr<RankPeer> rank_;
  const std::shared_ptr<Fate> fate_;
};

class LostRankTest : public testing::Test {
 protected:
  static constexpr int kRanks = 3;

  LostRankTest() {
    EngineConfig config;
    config.model.model_dir = GATEHOUSE_SOURCE_DIR "/tests/golden/odd_bf16";
    config.scheduler = {.max_sequences = 6, .max_step_tokens = 48};
    auto backends = MakeBackends("cpu", {.num_threads = 2}, kRanks);
    auto loaded = LoadParts(config, *std::move(backends));
    GATEHOUSE_CHECK(loaded.ok()) << loaded.status().ToString();
    parts_ = std::make_unique<LoadedParts>(*std::move(loaded));
    const auto rendezvous = std::make_shared<InProcessRendezvous>(std::chrono::minutes(1));
    const int num_moe_layers = parts_->model.num_moe_layers();
    GroupWorkerParts group{.cost = parts_->cost,
                           .placements = {static_cast<size_t>(num_moe_layers),
                                          LinearPlacement(parts_->model.moe.num_experts, kRanks)}};
    for (int r = 0; r < kRanks; ++r) {
      fates_.push_back(std::make_shared<MortalRank::Fate>());
      auto rank =
          std::make_unique<LocalRank>(r, std::move(parts_->ranks[r]), num_moe_layers,
                                      [rendezvous](const Membership& membership, int member) {
                                        return rendezvous->Join(membership, member);
                                      });
      group.ranks.push_back(std::make_unique<MortalRank>(std::move(rank), fates_.back()));
    }
    worker_ = std::make_unique<GroupWorker>(std::move(group));
    rebalancer_ = std::make_unique<Rebalancer>(worker_->placements());
    scheduler_ = std::make_unique<Scheduler>(
        SchedulerSetup{.options = parts_->config.scheduler,
                       .num_ranks = kRanks,
                       .num_blocks = static_cast<int32_t>(parts_->memory_plan.num_kv_blocks)});
  }

  // As the engine's loop does it.
  bool Regroup() {
    const absl::StatusOr<Regrouped> regrouped = worker_->Regroup();
    if (!regrouped.ok()) return false;
    scheduler_->SetMembers(regrouped->membership.members, regrouped->emptied);
    for (const int layer_idx : rebalancer_->SetMembers(regrouped->membership)) {
      worker_->Place(layer_idx, rebalancer_->placements()[layer_idx]);
    }
    return true;
  }

  // Greedy tokens of eight requests; `before_step` is told how many steps there were.
  std::vector<std::vector<int32_t>> Generate(const std::function<void(int)>& before_step) {
    std::mt19937 random(3);
    for (SequenceId id = 0; id < 8; ++id) {
      auto request = std::make_shared<Request>();
      for (int i = 0; i < 10 + 7 * static_cast<int>(id); ++i) {
        request->prompt_ids.push_back(
            static_cast<int32_t>(random() % static_cast<uint32_t>(parts_->description.vocab_size)));
      }
      request->stop.max_new_tokens = 12;
      scheduler_->Add(id, request, TimePoint{});
    }
    std::vector<std::vector<int32_t>> tokens(8);
    for (int step = 0; !scheduler_->empty(); ++step) {
      before_step(step);
      if (worker_->needs_regroup() && !Regroup()) {
        ++num_groups_failed_;
        continue;
      }
      const StepPlan& plan = scheduler_->Plan();
      const std::vector<RowSampling> sampling(plan.logit_rows.size());
      if (in_step_) in_step_(step);
      const absl::StatusOr<StepResult> result = worker_->Run(plan, sampling);
      if (!result.ok()) {
        EXPECT_TRUE(absl::IsUnavailable(result.status())) << result.status();
        ++num_lost_steps_;
        scheduler_->Abandon();
        continue;
      }
      for (const SequenceUpdate& update :
           scheduler_->Commit({.samples = result->samples, .row_failed = result->row_failed})) {
        if (update.sample_idx < 0) continue;
        tokens[update.sequence].push_back(result->samples[update.sample_idx].token_id);
      }
    }
    return tokens;
  }

  std::unique_ptr<LoadedParts> parts_;
  std::vector<std::shared_ptr<MortalRank::Fate>> fates_;
  std::unique_ptr<GroupWorker> worker_;
  std::unique_ptr<Rebalancer> rebalancer_;
  std::unique_ptr<Scheduler> scheduler_;
  std::function<void(int)> in_step_;
  int num_lost_steps_ = 0, num_groups_failed_ = 0;
};

TEST_F(LostRankTest, TokensAreThoseOfAWholeDeployment) {
  const auto whole = Generate([](int) {});
  EXPECT_EQ(num_lost_steps_, 0);
  // After the plan was made and before it runs: a rank dies in every fifth step, and is back,
  // empty, three steps later.
  in_step_ = [&](int step) {
    if (step % 5 == 2) fates_[1 + step / 5 % 2]->up = false;
  };
  const auto with_losses = Generate([&](int step) {
    if (step % 5 != 0) return;
    for (const auto& fate : fates_) {
      if (fate->up) continue;
      ++fate->num_returns;
      fate->up = true;
    }
  });
  EXPECT_EQ(with_losses, whole);
  EXPECT_GE(num_lost_steps_, 3);
  EXPECT_GE(worker_->membership().epoch, 6);
}

// It is back before anybody has asked: what was in its cache is gone all the same.
TEST_F(LostRankTest, ARankThatWasAwayBetweenTwoStepsHoldsNothing) {
  const auto whole = Generate([](int) {});
  int64_t epoch = 0;
  EXPECT_EQ(Generate([&](int step) {
              if (step == 3) ++fates_[2]->num_returns;
              if (step == 4) epoch = worker_->membership().epoch;
            }),
            whole);
  EXPECT_EQ(epoch, 2);
}

// Who was lost before a group that nobody could form is not forgotten by the next.
TEST_F(LostRankTest, AGroupThatCannotBeFormedIsTriedAgain) {
  const auto whole = Generate([](int) {});
  in_step_ = [&](int step) {
    if (step != 4) return;
    fates_[1]->up = false;
    fates_[2]->num_joins_to_fail = 20;  // of eight a try
  };
  EXPECT_EQ(Generate([](int) {}), whole);
  EXPECT_EQ(num_groups_failed_, 2);
  EXPECT_THAT(worker_->membership().members, testing::ElementsAre(0, 2));
}

}  // namespace
}  // namespace gatehouse
