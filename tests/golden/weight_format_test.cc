// What int8 and int4 weights do to the demo model, whole: close to f32, and the same bits on every
// instruction set.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <sstream>

#include "kernels/cpu/isa_list.h"
#include "tests/testing/engine_runner.h"

namespace gatehouse {
namespace {

// Log-probabilities of each token of the first windows of a text.
std::vector<double> TextLogprobs(WeightFormat weights, const std::string& isa, size_t num_windows) {
  EngineConfig config;
  config.model.expert_weights = config.model.dense_weights = weights;
  const auto runner = *EngineRunner::Create({.model_dir = GATEHOUSE_SOURCE_DIR "/models/demo",
                                             .num_threads = 2,
                                             .isa = isa,
                                             .config = config});
  std::ifstream file(GATEHOUSE_SOURCE_DIR "/docs/routing.md");
  std::stringstream text;
  text << file.rdbuf();
  const std::vector<int32_t> ids =
      *runner->engine().tokenizer().Encode(text.str(), {.add_special_tokens = false});
  constexpr size_t kWindow = 240;
  std::vector<Request> requests(num_windows);
  for (size_t w = 0; w < num_windows; ++w) {
    const auto begin = ids.begin() + static_cast<int64_t>(w * kWindow);
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

TEST(WeightFormatEffectTest, ANarrowFormatShowsButStaysClose) {
  const std::vector<double> exact = TextLogprobs(WeightFormat::kF32, "", 8);
  struct Limit {
    WeightFormat format;
    double median, p95, mean;  // of the difference; the last with its sign
  };
  // What was measured, times two.
  for (const Limit& limit : {Limit{WeightFormat::kInt8, 0.035, 0.18, 0.01},
                             Limit{WeightFormat::kInt4, 0.31, 1.5, 0.07}}) {
    std::vector<double> differences = TextLogprobs(limit.format, "", 8);
    double mean = 0;
    for (size_t i = 0; i < exact.size(); ++i) {
      mean += (exact[i] - differences[i]) / static_cast<double>(exact.size());
      differences[i] = std::abs(differences[i] - exact[i]);
    }
    std::sort(differences.begin(), differences.end());
    const double median = differences[differences.size() / 2];
    const double p95 = differences[differences.size() * 95 / 100];
    std::cout << WeightFormatName(limit.format) << ": |difference of a log-probability| median "
              << median << ", p95 " << p95 << ", largest " << differences.back() << "; loss "
              << mean << ", of " << exact.size() << " tokens\n";
    EXPECT_GT(median, 0);
    EXPECT_LT(median, limit.median);
    EXPECT_LT(p95, limit.p95);
    EXPECT_LT(std::abs(mean), limit.mean);
  }
}

TEST(WeightFormatTest, GivesTheSameBitsOnEveryInstructionSet) {
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    const std::vector<double> best = TextLogprobs(format, "", 1);
    for (const cpu::IsaKernels* isa : cpu::SupportedIsas()) {
      EXPECT_EQ(TextLogprobs(format, isa->name, 1), best)
          << WeightFormatName(format) << " " << isa->name;
    }
  }
}

}  // namespace
}  // namespace gatehouse
