// A model read from a cache of packed weights against the same one packed from its checkpoint: the
// same tokens and the same bits of their log-probabilities.
#include <gtest/gtest.h>

#include "tests/testing/checkpoint_builder.h"
#include "tests/testing/engine_runner.h"

namespace gatehouse {
namespace {

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<double> logprobs;
  PackedCacheReport report;
  bool operator==(const Answer& other) const {
    return tokens == other.tokens && logprobs == other.logprobs;
  }
};

Answer Ask(const std::string& model, WeightFormat format, const std::string& cache) {
  EngineConfig config;
  config.model.expert_weights = config.model.dense_weights = format;
  config.model.packed_cache = cache;
  const auto runner =
      EngineRunner::Create({.model_dir = GATEHOUSE_SOURCE_DIR "/tests/golden/" + model,
                            .num_threads = 2,
                            .config = config});
  EXPECT_TRUE(runner.ok()) << runner.status();
  Request request;
  request.prompt_ids = {3, 1, 4, 15, 9, 26, 5};
  request.sampling.temperature = 0;
  request.stop.max_new_tokens = 12;
  request.stop.ignore_eos = true;
  request.output.top_logprobs = 0;
  const auto sink = (*runner)->Run({request})[0];
  EXPECT_TRUE(sink->Wait().ok()) << sink->Wait();
  Answer answer{.report = (*runner)->engine().model().packed_cache};
  for (const TokenOutput& token : sink->tokens) {
    answer.tokens.push_back(token.id);
    answer.logprobs.push_back(*token.logprob);
  }
  return answer;
}

// Shards, stacked q, k and v, latent attention's heads, a shared expert, biases, a dense layer, odd
// widths.
TEST(PackedCacheModelTest, AnswersTheSameWithAndWithoutCacheInEveryFormat) {
  for (const std::string model : {"plain_f32", "odd_bf16", "deepseek_v2_lite_f16", "gpt_oss_bf16",
                                  "qwen2_moe_f32", "mlp_only_f16"}) {
    const TempDir cache;
    for (const WeightFormat format : kWeightFormats) {
      SCOPED_TRACE(model + " " + std::string(WeightFormatName(format)));
      const Answer plain = Ask(model, format, ""), first = Ask(model, format, cache.path()),
                   second = Ask(model, format, cache.path());
      EXPECT_EQ(plain.report.file, "");
      EXPECT_EQ(first.report.not_read, "there is none yet");
      EXPECT_EQ(first.report.not_saved, "");
      EXPECT_EQ(second.report.not_read, "");
      EXPECT_EQ(plain.tokens.size(), 12u);
      EXPECT_TRUE(first == plain);
      EXPECT_TRUE(second == plain);
    }
  }
}

}  // namespace
}  // namespace gatehouse
