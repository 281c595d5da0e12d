// The same request gives the same bits whatever shares the batch, however its prompt is chunked, on
// any number of threads, and when memory is so tight that it is preempted and computed again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <map>
#include <random>
#include <sstream>

#include "tests/golden/trace.h"
#include "tests/testing/engine_runner.h"

namespace gatehouse {
namespace {

const char kModelDir[] = GATEHOUSE_SOURCE_DIR "/models/demo";

std::vector<int32_t> RandomPrompt(std::mt19937& random, int num_tokens) {
  std::vector<int32_t> ids(num_tokens);
  for (int32_t& id : ids) id = 1 + static_cast<int32_t>(random() % 4095);
  return ids;
}

// Sampled, so that the draw is compared too.
Request Probe() {
  std::mt19937 random(11);
  Request request;
  request.prompt_ids = RandomPrompt(random, 77);
  request.sampling.temperature = 0.8f;
  request.sampling.top_p = 0.95f;
  request.sampling.seed = 42;
  request.stop.max_new_tokens = 40;
  request.stop.ignore_eos = true;
  request.output.top_logprobs = 3;
  request.output.prompt_logprobs = 0;
  request.output.routed_experts = true;
  return request;
}

std::vector<Request> Companions(int count, int num_new_tokens) {
  std::mt19937 random(12);
  std::vector<Request> requests(count);
  for (Request& request : requests) {
    request.prompt_ids = RandomPrompt(random, 1 + static_cast<int>(random() % 120));
    request.sampling.seed = random();
    request.stop.ignore_eos = num_new_tokens > 0;
    request.stop.max_new_tokens =
        num_new_tokens > 0 ? num_new_tokens : 1 + static_cast<int32_t>(random() % 60);
  }
  return requests;
}

struct Setting {
  std::string name;
  int num_threads = 1;
  int max_step_tokens = 512;
  int num_companions = 0;
  int64_t kv_cache_bytes = 0;
  int companion_new_tokens = 0;  // 0: random, few
  KvType kv_type = KvType::kF32;
  int num_ranks = 1;
};

Trace RunProbe(const Setting& setting, int* num_preemptions = nullptr) {
  EngineConfig config;
  config.scheduler.max_step_tokens = setting.max_step_tokens;
  config.cache.kv_cache_bytes = setting.kv_cache_bytes;
  config.cache.kv_type = setting.kv_type;
  auto runner = EngineRunner::Create({.model_dir = kModelDir,
                                      .num_threads = setting.num_threads,
                                      .num_ranks = setting.num_ranks,
                                      .config = config});
  EXPECT_TRUE(runner.ok()) << runner.status();
  std::vector<Request> requests = Companions(setting.num_companions, setting.companion_new_tokens);
  requests.insert(requests.begin() + setting.num_companions / 2, Probe());
  const auto sinks = (*runner)->Run(requests);
  for (const auto& sink : sinks) {
    EXPECT_TRUE(sink->Wait().ok()) << sink->Wait();
    EXPECT_EQ(sink->num_closes, 1);
    if (num_preemptions != nullptr && sink->finished) {
      *num_preemptions += sink->finished->num_preemptions;
    }
  }
  return TraceOf(*sinks[setting.num_companions / 2]);
}

class InvarianceTest : public testing::TestWithParam<Setting> {};

TEST_P(InvarianceTest, ARequestGivesTheSameBitsAsAlone) {
  const Trace alone = RunProbe({.name = "alone", .kv_type = GetParam().kv_type});
  ASSERT_EQ(alone.logprobs.size(), 76u + 40u);
  EXPECT_EQ(RunProbe(GetParam()), alone);
}

INSTANTIATE_TEST_SUITE_P(Settings, InvarianceTest,
                         testing::Values(Setting{.name = "TwoThreads", .num_threads = 2},
                                         Setting{.name = "FourThreads", .num_threads = 4},
                                         Setting{.name = "ChunksOfAtMost16", .max_step_tokens = 16},
                                         Setting{.name = "ChunksOfAtMost33", .max_step_tokens = 33},
                                         Setting{.name = "Among31Others", .num_companions = 31},
                                         Setting{.name = "Among31OthersInSmallSteps",
                                                 .num_threads = 2,
                                                 .max_step_tokens = 48,
                                                 .num_companions = 31},
                                         Setting{.name = "TwoRanks", .num_ranks = 2},
                                         Setting{.name = "EightRanks", .num_ranks = 8},
                                         Setting{.name = "FourRanksAmong31OthersInSmallSteps",
                                                 .num_threads = 2,
                                                 .max_step_tokens = 48,
                                                 .num_companions = 31,
                                                 .num_ranks = 4},
                                         Setting{.name = "OfBF16Among31OthersInSmallSteps",
                                                 .num_threads = 2,
                                                 .max_step_tokens = 48,
                                                 .num_companions = 31,
                                                 .kv_type = KvType::kBF16},
                                         Setting{.name = "OfInt8Among31OthersInSmallSteps",
                                                 .num_threads = 2,
                                                 .max_step_tokens = 48,
                                                 .num_companions = 31,
                                                 .kv_type = KvType::kInt8}),
                         [](const auto& info) { return info.param.name; });

class KvTypeTest : public testing::TestWithParam<KvType> {};

INSTANTIATE_TEST_SUITE_P(Types, KvTypeTest,
                         testing::Values(KvType::kF32, KvType::kBF16, KvType::kInt8),
                         [](const auto& info) { return std::string(KvTypeName(info.param)); });

// Warm: the cache holds what another request and then this one have computed.
TEST_P(KvTypeTest, AWarmRequestGivesTheSameBitsAsACold) {
  Request plain = Probe();  // nothing that tells of prompt rows, so that they need not be computed
  plain.output = {.top_logprobs = 3};
  Request beginning = plain;
  beginning.prompt_ids.resize(50);
  EngineConfig config;
  config.cache.kv_type = GetParam();
  const auto new_runner = [&] {
    return *EngineRunner::Create({.model_dir = kModelDir, .num_threads = 2, .config = config});
  };
  const auto cold = new_runner()->Run({plain})[0];
  const Trace cold_probe = TraceOf(*new_runner()->Run({Probe()})[0]);
  const auto runner = new_runner();
  runner->Run({beginning});
  const auto half_warm = runner->Run({plain})[0], warm = runner->Run({plain})[0];
  EXPECT_EQ(half_warm->started->num_cached_prompt_tokens, 48);
  EXPECT_EQ(warm->started->num_cached_prompt_tokens, 64);
  EXPECT_EQ(TraceOf(*cold).logprobs.size(), 40u);
  EXPECT_EQ(TraceOf(*half_warm), TraceOf(*cold));
  EXPECT_EQ(TraceOf(*warm), TraceOf(*cold));
  EXPECT_EQ(TraceOf(*runner->Run({Probe()})[0]), cold_probe);  // with what tells of prompt rows
}

TEST(OutputsTest, TheFirstOfSeveralGivesTheSameBitsAsARequestForOne) {
  const auto runner = *EngineRunner::Create({.model_dir = kModelDir, .num_threads = 2});
  Request request = Probe();
  const auto alone = runner->Run({request})[0];
  request.sampling.n = 4;
  const auto sink = runner->Run({request})[0];
  ASSERT_TRUE(sink->Wait().ok()) << sink->Wait();
  CollectingSink first;  // what the first output alone received
  std::vector<std::vector<int32_t>> ids(4);
  first.prompt = sink->prompt;
  for (size_t i = 0; i < sink->tokens.size(); ++i) {
    const int32_t output_index = sink->output_indices[i];
    ids[output_index].push_back(sink->tokens[i].id);
    if (output_index == 0) first.tokens.push_back(sink->tokens[i]);
  }
  first.text = alone->text;  // the texts of all are mixed; the bytes of the tokens are compared
  EXPECT_EQ(TraceOf(first), TraceOf(*alone));
  for (int i = 1; i < 4; ++i) {
    EXPECT_EQ(ids[i].size(), 40u);
    EXPECT_NE(ids[i], ids[0]);
  }
}

TEST_P(KvTypeTest, ARecomputedRequestGivesTheSameBitsAsAlone) {
  const Trace alone = RunProbe({.name = "alone", .kv_type = GetParam()});
  // Room for two sequences of 256 tokens: 6 layers, keys and values of 4 heads of 32 channels.
  const int64_t scale_bytes = GetParam() == KvType::kInt8 ? 4 : 0;
  const int64_t bytes_per_token = 6 * 2 * 4 * (32 * KvElementBytes(GetParam()) + scale_bytes);
  int num_preemptions = 0;
  // Companions grow by eight blocks each: more than the scheduler holds back for them.
  const Trace crowded = RunProbe({.name = "crowded",
                                  .num_companions = 15,
                                  .kv_cache_bytes = 512 * bytes_per_token,
                                  .companion_new_tokens = 128,
                                  .kv_type = GetParam()},
                                 &num_preemptions);
  EXPECT_EQ(crowded, alone);
  EXPECT_GT(num_preemptions, 0);
}

// Log-probabilities of each token of a text, in windows that the context holds.
std::vector<double> TextLogprobs(KvType type) {
  EngineConfig config;
  config.cache.kv_type = type;
  const auto runner =
      *EngineRunner::Create({.model_dir = kModelDir, .num_threads = 2, .config = config});
  std::ifstream file(GATEHOUSE_SOURCE_DIR "/docs/routing.md");
  std::stringstream text;
  text << file.rdbuf();
  const std::vector<int32_t> ids =
      *runner->engine().tokenizer().Encode(text.str(), {.add_special_tokens = false});
  constexpr size_t kWindow = 240, kNumWindows = 8;
  std::vector<Request> requests(kNumWindows);
  for (size_t w = 0; w < kNumWindows; ++w) {
    const auto begin = ids.begin() + w * kWindow;
    requests[w].prompt_ids.assign(begin, begin + kWindow);
    requests[w].stop.max_new_tokens = 1;
    requests[w].output.prompt_logprobs = 0;
  }
  std::vector<double> logprobs;
  for (const auto& sink : runner->Run(requests)) {
    EXPECT_TRUE(sink->Wait().ok()) << sink->Wait();
    for (size_t i = 1; i < sink->prompt.size(); ++i) logprobs.push_back(*sink->prompt[i].logprob);
  }
  return logprobs;
}

TEST(KvTypeEffectTest, ANarrowTypeShowsButStaysClose) {
  const std::vector<double> exact = TextLogprobs(KvType::kF32);
  // What was measured, times two.
  const std::map<KvType, std::pair<double, double>> limits = {{KvType::kBF16, {0.003, 0.014}},
                                                              {KvType::kInt8, {0.007, 0.033}}};
  for (const auto& [type, limit] : limits) {
    std::vector<double> differences = TextLogprobs(type);
    for (size_t i = 0; i < exact.size(); ++i) {
      differences[i] = std::abs(differences[i] - exact[i]);
    }
    std::sort(differences.begin(), differences.end());
    const double median = differences[differences.size() / 2];
    const double p95 = differences[differences.size() * 95 / 100];
    std::cout << KvTypeName(type) << ": |difference of a log-probability| median " << median
              << ", p95 " << p95 << ", largest " << differences.back() << ", of " << exact.size()
              << " tokens\n";
    EXPECT_GT(median, 0);
    EXPECT_LT(median, limit.first) << KvTypeName(type);
    EXPECT_LT(p95, limit.second) << KvTypeName(type);
  }
}

}  // namespace
}  // namespace gatehouse
