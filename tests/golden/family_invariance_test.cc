// The same request gives the same bits in any company, with a warm prefix, computed again after a
// preemption and as the first of several outputs, for the families whose attention is not the plain
// one (windows, sinks, a latent cache), with each type of keys and values, and for those and a
// plain one in each format of weights.
#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <tuple>

#include "tests/golden/trace.h"
#include "tests/testing/engine_runner.h"

namespace gatehouse {
namespace {

using ModelAndTypes = std::tuple<const char*, KvType, std::optional<WeightFormat>>;

class FamilyInvarianceTest : public testing::TestWithParam<ModelAndTypes> {
 protected:
  static constexpr int kPromptTokens = 40;  // some windows of the checkpoints, and two blocks
  static constexpr int kNewTokens = 12;
  static constexpr int kContext = 128;

  static std::unique_ptr<EngineRunner> NewRunner(int num_threads, int max_step_tokens,
                                                 int64_t kv_cache_bytes = 0, int num_ranks = 1) {
    EngineConfig config;
    config.cache.kv_cache_bytes = kv_cache_bytes;
    config.scheduler.max_context = kContext;
    config.scheduler.max_step_tokens = max_step_tokens;
    config.cache.kv_type = std::get<1>(GetParam());
    config.model.expert_weights = config.model.dense_weights = std::get<2>(GetParam());
    const std::string dir =
        std::string(GATEHOUSE_SOURCE_DIR) + "/tests/golden/" + std::get<0>(GetParam());
    auto runner = EngineRunner::Create(
        {.model_dir = dir, .num_threads = num_threads, .num_ranks = num_ranks, .config = config});
    EXPECT_TRUE(runner.ok()) << runner.status();
    return runner.ok() ? *std::move(runner) : nullptr;
  }

  static Request RandomRequest(EngineRunner& runner, int num_tokens, uint32_t seed) {
    std::mt19937 random(seed);
    Request request;
    const auto vocab_size = static_cast<uint32_t>(runner.engine().model().vocab_size);
    for (int i = 0; i < num_tokens; ++i) {
      request.prompt_ids.push_back(static_cast<int32_t>(random() % vocab_size));
    }
    request.sampling.temperature = 0.9f;
    request.sampling.seed = seed;
    request.stop.max_new_tokens = kNewTokens;
    request.stop.ignore_eos = true;
    return request;
  }

  static Request Probe(EngineRunner& runner) {
    Request request = RandomRequest(runner, kPromptTokens, 5);
    request.output.top_logprobs = 2;
    return request;
  }

  // With what tells of each row of the prompt, so that all are computed and compared.
  static Request TellingProbe(EngineRunner& runner) {
    Request request = Probe(runner);
    request.output.prompt_logprobs = 0;
    request.output.routed_experts = true;
    return request;
  }
};

TEST_P(FamilyInvarianceTest, ARequestGivesTheSameBitsInAnyCompany) {
  const auto lonely = NewRunner(1, 512);
  const auto crowded = NewRunner(2, 24);
  ASSERT_TRUE(lonely != nullptr && crowded != nullptr);
  const Trace alone = TraceOf(*lonely->Run({TellingProbe(*lonely)})[0]);
  EXPECT_EQ(alone.logprobs.size(), size_t{kPromptTokens - 1 + kNewTokens});
  std::vector<Request> requests;
  for (int i = 0; i < 8; ++i) requests.push_back(RandomRequest(*crowded, 3 + 7 * i, 100 + i));
  requests.insert(requests.begin() + 4, TellingProbe(*crowded));
  EXPECT_EQ(TraceOf(*crowded->Run(requests)[4]), alone);
}

TEST_P(FamilyInvarianceTest, AWarmRequestGivesTheSameBitsAsACold) {
  const auto fresh = NewRunner(1, 512);
  const auto used = NewRunner(2, 24);
  ASSERT_TRUE(fresh != nullptr && used != nullptr);
  const Trace cold = TraceOf(*fresh->Run({Probe(*fresh)})[0]);
  Request beginning = Probe(*used);
  beginning.prompt_ids.resize(20);
  used->Run({beginning});
  const auto half_warm = used->Run({Probe(*used)})[0], warm = used->Run({Probe(*used)})[0];
  EXPECT_EQ(half_warm->started->num_cached_prompt_tokens, 16);
  EXPECT_EQ(warm->started->num_cached_prompt_tokens, 32);
  EXPECT_EQ(TraceOf(*half_warm), cold);
  EXPECT_EQ(TraceOf(*warm), cold);
}

TEST_P(FamilyInvarianceTest, ARequestGivesTheSameBitsOnAnyNumberOfRanks) {
  const auto one = NewRunner(1, 512);
  ASSERT_NE(one, nullptr);
  const Trace alone = TraceOf(*one->Run({TellingProbe(*one)})[0]);
  for (const int num_ranks : {2, 3}) {
    const auto several = NewRunner(2, 64, 0, num_ranks);
    ASSERT_NE(several, nullptr);
    std::vector<Request> requests;
    for (int i = 0; i < 6; ++i) requests.push_back(RandomRequest(*several, 3 + 7 * i, 100 + i));
    requests.insert(requests.begin() + 4, TellingProbe(*several));
    EXPECT_EQ(TraceOf(*several->Run(requests)[4]), alone) << num_ranks << " ranks";
  }
}

// Memory for two requests of the longest kind, and five that grow to that: whoever came last gives
// way, which is the probe.
TEST_P(FamilyInvarianceTest, ARecomputedRequestGivesTheSameBitsAsAlone) {
  const auto roomy = NewRunner(1, 512);
  ASSERT_NE(roomy, nullptr);
  const int64_t num_blocks = 2 * kContext / EngineConfig().cache.block_tokens;
  const auto tight = NewRunner(2, 512, num_blocks * roomy->engine().memory_plan().kv_block_bytes);
  ASSERT_NE(tight, nullptr);
  std::vector<Request> requests;
  for (int i = 0; i < 4; ++i) {
    requests.push_back(RandomRequest(*tight, 3 + 7 * i, 100 + i));
    requests.back().stop.max_new_tokens = kContext - 3 - 7 * i;
  }
  requests.push_back(TellingProbe(*tight));
  requests.back().stop.max_new_tokens = 3 * kNewTokens;
  const Trace alone = TraceOf(*roomy->Run({requests.back()})[0]);
  const auto sink = tight->Run(requests).back();
  ASSERT_TRUE(sink->Wait().ok()) << sink->Wait();
  EXPECT_EQ(TraceOf(*sink), alone);
  EXPECT_GT(sink->finished->num_preemptions, 0);
}

TEST_P(FamilyInvarianceTest, TheFirstOfSeveralOutputsGivesTheSameBitsAsOne) {
  const auto runner = NewRunner(2, 24);
  ASSERT_NE(runner, nullptr);
  Request request = TellingProbe(*runner);
  const auto alone = runner->Run({request})[0];
  request.sampling.n = 3;
  const auto sink = runner->Run({request})[0];
  ASSERT_TRUE(sink->Wait().ok()) << sink->Wait();
  CollectingSink first;
  first.prompt = sink->prompt;
  for (size_t i = 0; i < sink->tokens.size(); ++i) {
    if (sink->output_indices[i] == 0) first.tokens.push_back(sink->tokens[i]);
  }
  first.text = alone->text;  // the texts of all are mixed; the bytes of the tokens are compared
  EXPECT_EQ(TraceOf(first), TraceOf(*alone));
  EXPECT_EQ(sink->tokens.size(), size_t{3 * kNewTokens});
}

std::string ParamName(const testing::TestParamInfo<ModelAndTypes>& info) {
  const auto& [model, kv_type, weights] = info.param;
  return std::string(model) + "_" + std::string(KvTypeName(kv_type)) +
         (weights ? "_" + std::string(WeightFormatName(*weights)) : "");
}

INSTANTIATE_TEST_SUITE_P(
    Families, FamilyInvarianceTest,
    testing::Combine(testing::Values("mixtral_window_bf16", "qwen2_moe_window_bf16", "gpt_oss_bf16",
                                     "deepseek_v2_lite_f16", "deepseek_v3_yarn_bf16"),
                     testing::Values(KvType::kF32, KvType::kBF16, KvType::kInt8),
                     testing::Values(std::nullopt)),
    ParamName);
INSTANTIATE_TEST_SUITE_P(Weights, FamilyInvarianceTest,
                         testing::Combine(testing::Values("odd_bf16", "qwen2_moe_window_bf16",
                                                          "gpt_oss_bf16", "deepseek_v2_lite_f16"),
                                          testing::Values(KvType::kF32),
                                          testing::Values(WeightFormat::kInt8,
                                                          WeightFormat::kInt4)),
                         ParamName);

}  // namespace
}  // namespace gatehouse
