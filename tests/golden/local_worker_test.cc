#include "engine/local_worker.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <random>
#include <vector>

#include "engine/loaded_model.h"
#include "engine/scheduler/scheduler.h"
#include "kernels/backend.h"

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
TEST(LocalWorkerTest, EveryRouteOfARealModelIsWhole) {
  for (const std::string& dir : GoldenModels()) {
    SCOPED_TRACE(dir);
    EngineConfig config;
    config.model.model_dir = dir;
    config.scheduler = {.max_sequences = 4, .max_step_tokens = 24};
    auto backends = MakeBackends("cpu", {.num_threads = 2}, 1);
    ASSERT_TRUE(backends.ok()) << backends.status();
    const absl::StatusOr<LoadedModel> model = LoadModel(config, *std::move(backends));
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

}  // namespace
}  // namespace gatehouse
