#include "tests/testing/null_backend.h"

#include <memory>
#include <set>
#include <string>

#include "engine/engine.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/engine_runner.h"

namespace gatehouse {
namespace {

using ::testing::ElementsAre;

class NullBackendTest : public ::testing::Test {
 protected:
  // An engine on a real model folder, whose weights are looked at and never used.
  std::unique_ptr<Engine> MakeEngine(NullBackendOptions options) {
    EngineConfig config;
    config.model.model_dir = std::string(GATEHOUSE_SOURCE_DIR) + "/tests/golden/plain_f32";
    Backends backends;
    backends.push_back(std::make_unique<NullBackend>(std::move(options)));
    absl::StatusOr<std::unique_ptr<Engine>> engine =
        Engine::Create(config, std::move(backends), clock_, observer_);
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }
  static std::shared_ptr<CollectingSink> Run(Engine& engine, Request request) {
    auto sink = std::make_shared<CollectingSink>();
    EXPECT_TRUE(engine.Submit(std::move(request), sink).ok());
    EXPECT_EQ(sink->Wait(), absl::OkStatus());
    return sink;
  }

  SteadyClock clock_;
  IgnoringObserver observer_;
};

Request ScriptedRequest() {
  Request request;
  request.prompt_ids = {1, 2, 3};
  request.stop = {.max_new_tokens = 5, .ignore_eos = true};
  return request;
}

TEST_F(NullBackendTest, AnEngineOverItStreamsTheScript) {
  const auto engine = MakeEngine({.script = {7, 8, 9}});
  const auto sink = Run(*engine, ScriptedRequest());
  std::vector<int32_t> ids;
  for (const TokenOutput& token : sink->tokens) ids.push_back(token.id);
  EXPECT_THAT(ids, ElementsAre(7, 8, 9, 7, 8));
  EXPECT_EQ(sink->finished->reason, FinishReason::kLength);
}

TEST_F(NullBackendTest, ItsRoutesAreValid) {
  const auto engine = MakeEngine({.script = {7}, .step_duration = std::chrono::milliseconds(1)});
  Request request = ScriptedRequest();
  request.output.routed_experts = true;
  const auto sink = Run(*engine, request);
  const ModelDescription& model = engine->model();
  ASSERT_EQ(sink->prompt.size(), 3u);
  for (const TokenOutput& token : sink->prompt) {
    const std::vector<int32_t>& ids = token.routed_experts->expert_ids;
    ASSERT_EQ(ids.size(), model.moe_layers.size() * static_cast<size_t>(model.top_k));
    const std::set<int32_t> distinct(ids.begin(), ids.begin() + model.top_k);
    EXPECT_EQ(distinct.size(), static_cast<size_t>(model.top_k));
    EXPECT_GE(*distinct.begin(), 0);
    EXPECT_LT(*distinct.rbegin(), model.num_experts);
  }
}

}  // namespace
}  // namespace gatehouse
