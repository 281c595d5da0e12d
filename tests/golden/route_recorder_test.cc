// The trace of a served request holds the ranks that its routed experts show.
#include "engine/route_recorder.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "tests/testing/engine_runner.h"

namespace gatehouse {
namespace {

std::map<uint32_t, std::vector<int32_t>> ReadChoices(const std::string& file, int top_k) {
  std::ifstream stream(file, std::ios::binary);
  auto reader = TraceReader::Open(stream, file);
  EXPECT_TRUE(reader.ok()) << reader.status();
  std::map<uint32_t, std::vector<int32_t>> choices;  // position -> experts, layer by layer
  TraceStep step;
  while (*reader->Next(step)) {
    const TraceHeader& header = reader->header();
    for (int layer = 0; layer < header.num_moe_layers; ++layer) {
      for (size_t row = 0; row < step.rows.size(); ++row) {
        const size_t at = (layer * step.rows.size() + row) * header.num_ranked;
        for (int slot = 0; slot < top_k; ++slot) {
          choices[step.rows[row].position].push_back(step.ranked_ids[at + slot]);
        }
      }
    }
  }
  return choices;
}

TEST(RouteRecorderTest, HoldsWhatTheRequestsReportShows) {
  const std::string file = testing::TempDir() + "/routes.trace";
  std::vector<std::vector<int32_t>> reported;
  {
    EngineConfig config;
    config.trace.file = file;
    config.scheduler.max_step_tokens = 20;  // a prompt in chunks
    auto runner = EngineRunner::Create(
        {.model_dir = GATEHOUSE_SOURCE_DIR "/tests/golden/plain_f32", .config = config});
    ASSERT_TRUE(runner.ok()) << runner.status();
    Request request;
    for (int i = 1; i < 41; ++i) request.prompt_ids.push_back(i * 11 % 500 + 1);
    request.sampling.temperature = 0;
    request.stop.max_new_tokens = 6;
    request.stop.ignore_eos = true;
    request.output.prompt_logprobs = 0;
    request.output.routed_experts = true;
    const auto sink = (*runner)->Run({request}).front();
    ASSERT_TRUE(sink->Wait().ok()) << sink->Wait();
    for (const TokenOutput& token : sink->prompt)
      reported.push_back(token.routed_experts->expert_ids);
    for (size_t i = 1; i < sink->tokens.size(); ++i) {
      reported.push_back(sink->tokens[i].routed_experts->expert_ids);
    }
  }  // the recorder writes what is left
  const auto choices = ReadChoices(file, 3);
  ASSERT_EQ(choices.size(), reported.size());
  for (size_t position = 0; position < reported.size(); ++position) {
    EXPECT_EQ(choices.at(static_cast<uint32_t>(position)), reported[position]) << position;
  }
}

TEST(RouteRecorderTest, EndsAtItsSizeWithWholeSteps) {
  const std::string file = testing::TempDir() + "/small.trace";
  const TraceHeader header = {.num_experts = 2, .num_moe_layers = 1, .top_k = 1, .num_ranked = 2};
  const std::vector<int32_t> ids = {1, 2}, positions = {0, 1};
  StepPlan plan;
  plan.token_ids = ids;
  plan.positions = positions;
  plan.spans = {{.first_row = 0, .num_rows = 2}};
  plan.span_sequences = {5};
  GateScores scores{.num_rows = 2, .num_experts = 2, .top_k = 1, .num_ranked = 2};
  scores.ranked_ids = {0, 1, 1, 0};
  scores.gate = {.5f, .5f, .5f, .5f};
  scores.row_failed = {0, 1};
  int num_recorded = 0;
  {
    auto recorder = RouteRecorder::Create({.file = file, .max_bytes = 200}, header);
    ASSERT_TRUE(recorder.ok()) << recorder.status();
    while ((*recorder)->BeginStep(plan)) {
      (*recorder)->OnLayer(0, scores, {});
      (*recorder)->EndStep();
      ASSERT_LT(++num_recorded, 100);
    }
  }
  EXPECT_LE(std::filesystem::file_size(file), 200u);
  std::ifstream stream(file, std::ios::binary);
  auto reader = TraceReader::Open(stream, file);
  ASSERT_TRUE(reader.ok());
  TraceStep step;
  int num_steps = 0;
  while (*reader->Next(step)) {
    ++num_steps;
    EXPECT_EQ(step.ranked_ids, (std::vector<int32_t>{0, 1, -1, -1}));  // the second row failed
  }
  EXPECT_EQ(num_steps, (200 - 40) / (4 + 2 * 9 + 4 * 4));
  EXPECT_FALSE(RouteRecorder::Create({.file = "/nowhere/trace"}, header).ok());
}

}  // namespace
}  // namespace gatehouse
