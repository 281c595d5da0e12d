// The engine against Hugging Face transformers: greedy tokens, log-probabilities of prompt and
// continuation, the five best tokens, and every router's choices and weights, on the checkpoints of
// this folder (README.md says how they were made).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/testing/engine_runner.h"

namespace gatehouse {
namespace {

using nlohmann::json;

const char kGoldenDir[] = GATEHOUSE_SOURCE_DIR "/tests/golden";

std::vector<std::string> CaseNames() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kGoldenDir)) {
    if (std::filesystem::exists(entry.path() / "golden.json")) {
      names.push_back(entry.path().filename());
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

// Transformers differs from itself by max_self_difference between two ways of computing the same
// text (f32, other summation orders). Ours is a third order, with errors of the same size and
// independent of theirs; the factor covers the tail of some thousand comparisons, the absolute term
// the six decimals of the file.
double Tolerance(const json& golden) {
  return 8 * golden["max_self_difference"].get<double>() + 2e-5;
}

class GoldenTest : public testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  void SetUp() override {
    const auto& [name, isa] = GetParam();
    const std::string dir = std::string(kGoldenDir) + "/" + name;
    std::ifstream file(dir + "/golden.json");
    golden_ = json::parse(file);
    auto runner = EngineRunner::Create({.model_dir = dir, .num_threads = 2, .isa = isa});
    ASSERT_TRUE(runner.ok()) << runner.status();
    runner_ = *std::move(runner);
  }

  std::shared_ptr<CollectingSink> Run(const json& prompt) {
    Request request;
    request.prompt_ids = prompt["prompt_ids"].get<std::vector<int32_t>>();
    request.sampling.temperature = 0;
    request.stop.max_new_tokens = static_cast<int32_t>(prompt["tokens"].size());
    request.stop.ignore_eos = true;
    request.output.top_logprobs = 5;
    request.output.prompt_logprobs = 0;
    request.output.routed_experts = true;
    return runner_->Run({request}).front();
  }

  json golden_;
  std::unique_ptr<EngineRunner> runner_;
};

TEST_P(GoldenTest, GreedyTokensAndLogprobsEqualTransformers) {
  const double tolerance = Tolerance(golden_);
  for (const json& prompt : golden_["prompts"]) {
    const auto sink = Run(prompt);
    ASSERT_TRUE(sink->Wait().ok()) << sink->Wait();
    ASSERT_EQ(sink->tokens.size(), prompt["tokens"].size());
    for (size_t i = 0; i < sink->tokens.size(); ++i) {
      const TokenOutput& token = sink->tokens[i];
      ASSERT_EQ(token.id, prompt["tokens"][i].get<int32_t>()) << "step " << i;
      EXPECT_NEAR(*token.logprob, prompt["logprobs"][i].get<double>(), tolerance) << "step " << i;
      ASSERT_EQ(token.top.size(), 5u);
      for (int best = 0; best < 5; ++best) {
        EXPECT_NEAR(token.top[best].logprob, prompt["top_logprobs"][i][best].get<double>(),
                    tolerance);
      }
      EXPECT_EQ(token.top[0].id, prompt["top_ids"][i][0].get<int32_t>());
    }
  }
}

TEST_P(GoldenTest, PromptLogprobsEqualTransformers) {
  const double tolerance = Tolerance(golden_);
  for (const json& prompt : golden_["prompts"]) {
    const auto sink = Run(prompt);
    ASSERT_EQ(sink->prompt.size(), prompt["prompt_ids"].size());
    EXPECT_FALSE(sink->prompt[0].logprob.has_value());
    for (size_t i = 1; i < sink->prompt.size(); ++i) {
      EXPECT_NEAR(sink->prompt[i].logprob.value_or(1),
                  prompt["prompt_logprobs"][i - 1].get<double>(), tolerance)
          << "position " << i << " of " << sink->prompt.size();
    }
  }
}

// Row r of a layer: prompt rows by the prompt event, the rows after them by the deltas.
TEST_P(GoldenTest, RouterChoicesAndWeightsEqualTransformers) {
  const int top_k = golden_["top_k"].get<int>();
  const double tolerance = Tolerance(golden_);
  for (const json& prompt : golden_["prompts"]) {
    const auto sink = Run(prompt);
    const size_t num_prompt = prompt["prompt_ids"].size();
    ASSERT_EQ(sink->prompt.size(), num_prompt);
    const json& routes = prompt["routes"];
    for (size_t layer = 0; layer < routes.size(); ++layer) {
      const json& experts = routes[layer]["experts"];
      for (size_t row = 0; row < experts.size(); ++row) {
        const auto& got = row < num_prompt ? sink->prompt[row].routed_experts
                                           : sink->tokens[row - num_prompt + 1].routed_experts;
        ASSERT_TRUE(got.has_value()) << "row " << row;
        ASSERT_EQ(got->expert_ids.size(), routes.size() * top_k);
        for (int slot = 0; slot < top_k; ++slot) {
          EXPECT_EQ(got->expert_ids[layer * top_k + slot], experts[row][slot].get<int32_t>())
              << "layer " << layer << " row " << row << " slot " << slot;
          EXPECT_NEAR(got->weights[layer * top_k + slot],
                      routes[layer]["weights"][row][slot].get<double>(), tolerance);
        }
      }
    }
  }
}

TEST_P(GoldenTest, TokenizerEqualsHuggingFaceTokenizers) {
  for (const json& sample : golden_["tokenizer_samples"]) {
    const auto ids = runner_->engine().tokenizer().Encode(sample["text"].get<std::string>(),
                                                          {.add_special_tokens = false});
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, sample["ids"].get<std::vector<int32_t>>()) << sample["text"];
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenTest,
                         testing::Combine(testing::ValuesIn(CaseNames()),
                                          testing::Values("", "portable")),
                         [](const auto& info) {
                           const std::string isa = std::get<1>(info.param);
                           return std::get<0>(info.param) + (isa.empty() ? "" : "_" + isa);
                         });

}  // namespace
}  // namespace gatehouse
