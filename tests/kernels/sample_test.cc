// Sampling against the distribution that the reference writes out (kernels/reference/sample.h).
#include "kernels/reference/sample.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "kernels/reference/reference_backend.h"
#include "tests/kernels/op_cases.h"

namespace gatehouse {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<RowSample> SampleRows(Backend& backend, std::vector<float> logits,
                                  const std::vector<RowSampling>& rows) {
  const int64_t num_rows = static_cast<int64_t>(rows.size());
  std::vector<RowSample> samples(rows.size());
  const int64_t vocab = static_cast<int64_t>(logits.size()) / num_rows;
  backend.Sample({.logits = MatrixView<float>(logits.data(), num_rows, vocab),
                  .rows = rows,
                  .samples = samples});
  return samples;
}

// The same logits under many draws.
std::vector<int32_t> DrawMany(Backend& backend, const std::vector<float>& logits,
                              const RowSampling& row, const std::vector<double>& uniforms) {
  std::vector<int32_t> ids;
  std::vector<RowSample> sample(1);
  MatrixView<const float> view(logits.data(), 1, static_cast<int64_t>(logits.size()));
  for (const double uniform : uniforms) {
    RowSampling drawn = row;
    drawn.uniform = uniform;
    backend.Sample({.logits = view, .rows = {&drawn, 1}, .samples = sample});
    EXPECT_EQ(sample[0].failure, SampleFailure::kNone);
    ids.push_back(sample[0].token_id);
  }
  return ids;
}

std::vector<double> EvenUniforms(int count) {
  std::vector<double> uniforms;
  for (int i = 0; i < count; ++i) uniforms.push_back((i + 0.5) / count);
  uniforms.push_back(0);
  uniforms.push_back(std::nextafter(1.0, 0.0));
  return uniforms;
}

std::vector<RowSampling> FilterCases() {
  return {{.temperature = 1},
          {.temperature = 0.3f},
          {.temperature = 5},
          {.temperature = 1, .top_k = 1},
          {.temperature = 1, .top_k = 7},
          {.temperature = 1, .top_k = 100000},
          {.temperature = 1, .top_p = 0.1f},
          {.temperature = 0.8f, .top_p = 0.9f},
          {.temperature = 1, .min_p = 0.05f},
          {.temperature = 1, .min_p = 1},
          {.temperature = 1, .typical_p = 0.2f},
          {.temperature = 1.3f, .typical_p = 0.95f},
          {.temperature = 0.9f, .top_k = 40, .top_p = 0.95f, .min_p = 0.02f, .typical_p = 0.9f},
          {.temperature = 2, .top_k = 300, .top_p = 0.7f}};
}

// A draw u must fall on the token whose share of [0, 1), from the most likely down, holds u. The
// distance of a logit from the largest, at most 28, rounds twice and exp is within 2 ulp: each mass
// is right within 2^-18 of itself, so each end of a share within 2^-17.
TEST(SampleTest, DrawsTheTokenWhoseShareHoldsTheUniform) {
  constexpr double kSlack = 0x1p-17;
  for (const int vocab : {1, 5, 64, 1000, 5003}) {
    const std::vector<float> logits = RandomFloats(vocab, vocab, 2.5f);
    for (const RowSampling& row : FilterCases()) {
      const std::vector<double> uniforms = EvenUniforms(200);
      std::map<int32_t, std::pair<double, double>> share;
      double sum = 0;
      for (const Candidate& c : SamplingDistribution(logits, row)) {
        share[c.id] = {sum, sum + c.probability};
        sum += c.probability;
      }
      const std::vector<int32_t> ids = DrawMany(*MakeCpu(""), logits, row, uniforms);
      for (size_t i = 0; i < ids.size(); ++i) {
        ASSERT_TRUE(share.contains(ids[i]))
            << "token " << ids[i] << " is filtered out; vocab " << vocab << " top_k " << row.top_k
            << " top_p " << row.top_p << " min_p " << row.min_p << " typical " << row.typical_p;
        const auto [begin, end] = share[ids[i]];
        ASSERT_TRUE(begin - kSlack <= uniforms[i] && uniforms[i] <= end + kSlack)
            << uniforms[i] << " drew " << ids[i] << " of [" << begin << ", " << end << ")";
      }
    }
  }
}

// Every candidate with a share worth a draw is drawn: no filter keeps too few.
TEST(SampleTest, DrawsEveryCandidateThatTheFiltersLeave) {
  const std::vector<float> logits = RandomFloats(11, 300, 2);
  for (const RowSampling& row : FilterCases()) {
    std::set<int32_t> expected;
    for (const Candidate& c : SamplingDistribution(logits, row)) {
      if (c.probability > 2e-3) expected.insert(c.id);
    }
    const std::vector<int32_t> ids = DrawMany(*MakeCpu(""), logits, row, EvenUniforms(2000));
    const std::set<int32_t> drawn(ids.begin(), ids.end());
    EXPECT_TRUE(std::includes(drawn.begin(), drawn.end(), expected.begin(), expected.end()))
        << "top_k " << row.top_k << " top_p " << row.top_p << " typical " << row.typical_p;
  }
}

TEST(SampleTest, FrequenciesPassAChiSquareTest) {
  constexpr int kNumDraws = 40000;
  const std::vector<float> logits = RandomFloats(12, 24, 1.5f);
  std::mt19937_64 random(99);
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<double> uniforms(kNumDraws);
  for (double& u : uniforms) u = uniform(random);
  const RowSampling row{.temperature = 0.9f};
  std::map<int32_t, int> counts;
  for (const int32_t id : DrawMany(*MakeCpu(""), logits, row, uniforms)) ++counts[id];
  double chi_square = 0;
  for (const Candidate& c : SamplingDistribution(logits, row)) {
    const double expected = c.probability * kNumDraws;
    chi_square += (counts[c.id] - expected) * (counts[c.id] - expected) / expected;
  }
  EXPECT_LT(chi_square, 49.7);  // 23 degrees of freedom: exceeded once in a thousand seeds
}

TEST(SampleTest, InstructionSetsThreadsAndNeighboursLeaveTheDraw) {
  constexpr int kVocab = 3001;
  const std::vector<RowSampling> filters = FilterCases();
  std::vector<RowSampling> rows;
  std::vector<float> logits;
  for (int r = 0; r < 42; ++r) {
    rows.push_back(filters[r % filters.size()]);
    rows.back().uniform = std::fmod(r * 0.6180339887, 1.0);
    rows.back().num_top_logprobs = r % 4;
    const std::vector<float> row = RandomFloats(r, kVocab, 0.1f * static_cast<float>(r));
    logits.insert(logits.end(), row.begin(), row.end());
  }
  const std::vector<RowSample> expected = SampleRows(*MakeCpu("portable"), logits, rows);
  for (const std::unique_ptr<Backend>& backend : AllCpuBackends()) {
    const std::vector<RowSample> samples = SampleRows(*backend, logits, rows);
    for (size_t r = 0; r < rows.size(); ++r) {
      const std::vector<float> row(logits.begin() + r * kVocab, logits.begin() + (r + 1) * kVocab);
      const RowSample alone = SampleRows(*backend, row, {rows[r]})[0];
      for (const RowSample& sample : {samples[r], alone}) {
        EXPECT_EQ(sample.token_id, expected[r].token_id) << backend->isa() << " row " << r;
        EXPECT_TRUE(SameBits({&sample.logprob, 1}, {&expected[r].logprob, 1})) << r;
        ASSERT_EQ(sample.top.size(), r % 4);
        for (size_t i = 0; i < sample.top.size(); ++i) {
          EXPECT_EQ(sample.top[i].id, expected[r].top[i].id);
          EXPECT_TRUE(SameBits({&sample.top[i].logprob, 1}, {&expected[r].top[i].logprob, 1}));
        }
      }
    }
  }
}

TEST(SampleTest, GreedyTakesTheLowestOfTheHighestWhereverItStands) {
  for (const std::string& isa : Isas()) {
    const std::unique_ptr<Backend> backend = MakeCpu(isa);
    for (const int vocab : {1, 7, 8, 65, 200}) {
      for (int at = 0; at < vocab; ++at) {
        std::vector<float> logits(vocab, -2);
        for (int i = at; i < vocab; i += 3) logits[i] = 1;
        EXPECT_EQ(SampleRows(*backend, logits, {{}})[0].token_id, at) << vocab;
      }
    }
  }
}

TEST(SampleTest, AdjustsLogitsAsTheReferenceDoes) {
  constexpr int kVocab = 500;
  ReferenceBackend reference;
  const std::vector<int32_t> repeated = {3, 77, 400, 401};
  const std::vector<int32_t> allowed = {3, 12, 77, 250, 499};
  const std::vector<std::pair<int32_t, float>> bias = {{3, 1}, {77, 2}, {77, 1}, {12, -kInf}};
  const std::vector<std::pair<int32_t, float>> huge = {{5, 3e38f}, {5, 3e38f}, {9, -3e38f}};
  for (int seed = 0; seed < 40; ++seed) {
    const std::vector<float> logits = RandomFloats(seed, kVocab);
    for (const RowSampling& row :
         {RowSampling{.repeated_ids = repeated, .repetition_penalty = 3},
          RowSampling{.repeated_ids = repeated, .repetition_penalty = 0.1f, .bias = bias},
          RowSampling{.bias = bias, .allowed_ids = allowed}, RowSampling{.bias = huge},
          RowSampling{.allowed_ids = allowed}}) {
      for (const float temperature : {0.0f, 1.0f}) {
        RowSampling drawn = row;
        drawn.temperature = temperature;
        drawn.uniform = std::fmod(seed * 0.6180339887, 1.0);
        const int32_t expected = SampleRows(reference, logits, {drawn})[0].token_id;
        for (const std::string& isa : Isas()) {
          const RowSample sample = SampleRows(*MakeCpu(isa), logits, {drawn})[0];
          EXPECT_EQ(sample.failure, SampleFailure::kNone);
          EXPECT_EQ(sample.token_id, expected) << isa << " seed " << seed;
        }
      }
    }
  }
}

TEST(SampleTest, LogprobsAreTheReferencesWhateverIsAdjusted) {
  ReferenceBackend reference;
  const std::vector<std::pair<int32_t, float>> bias = {{4, 50}};
  const std::vector<int32_t> wanted = {4, 0, 4, 3};
  for (const int vocab : {5, 63, 64, 130, 5000}) {
    const std::vector<float> logits = RandomFloats(vocab, vocab, 4);
    for (const RowSampling& row :
         {RowSampling{.bias = bias, .num_top_logprobs = 0}, RowSampling{.wanted_ids = wanted},
          RowSampling{.num_top_logprobs = 2, .wanted_ids = wanted},
          RowSampling{.forced_id = 3, .num_top_logprobs = 5},
          RowSampling{.forced_id = 0, .num_top_logprobs = 20}}) {
      const RowSample expected = SampleRows(reference, logits, {row})[0];
      const RowSample sample = SampleRows(*MakeCpu(""), logits, {row})[0];
      EXPECT_EQ(sample.token_id, expected.token_id);
      // 2^-20 relative error of the sum of exponentials, and one rounding of the result.
      EXPECT_NEAR(sample.logprob, expected.logprob, 2e-6);
      ASSERT_EQ(sample.top.size(), expected.top.size());
      for (size_t i = 0; i < sample.top.size(); ++i) {
        EXPECT_EQ(sample.top[i].id, expected.top[i].id);
        EXPECT_NEAR(sample.top[i].logprob, expected.top[i].logprob, 2e-6);
      }
      ASSERT_EQ(sample.wanted.size(), row.wanted_ids.size());
      ASSERT_EQ(expected.wanted.size(), row.wanted_ids.size());
      for (size_t i = 0; i < sample.wanted.size(); ++i) {
        EXPECT_NEAR(sample.wanted[i], expected.wanted[i], 2e-6);
      }
    }
  }
}

TEST(SampleTest, TopListBreaksTiesByTheLowerId) {
  std::vector<float> logits(200, 0);
  logits[150] = logits[60] = 2;
  const RowSample sample =
      SampleRows(*MakeCpu(""), logits, {{.forced_id = 0, .num_top_logprobs = 4}})[0];
  std::vector<int32_t> ids;
  for (const TokenLogprob& top : sample.top) ids.push_back(top.id);
  EXPECT_THAT(ids, ::testing::ElementsAre(60, 150, 0, 1));
}

TEST(SampleTest, FailsTheRowsItCannotServeAndNoOther) {
  const std::vector<std::pair<int32_t, float>> forbid = {{2, -kInf}};
  const std::vector<int32_t> allowed = {2};
  for (const std::string& isa : Isas()) {
    const std::unique_ptr<Backend> backend = MakeCpu(isa, 2);
    for (const float bad : {kInf, -kInf, std::numeric_limits<float>::quiet_NaN()}) {
      for (const int at : {0, 7, 8, 10}) {
        std::vector<float> logits = RandomFloats(1, 3 * 11);
        logits[11 + at] = bad;
        const std::vector<RowSample> samples = SampleRows(*backend, logits, {{}, {}, {}});
        EXPECT_EQ(samples[0].failure, SampleFailure::kNone);
        EXPECT_EQ(samples[1].failure, SampleFailure::kNotFinite) << bad << " at " << at;
        EXPECT_EQ(samples[2].failure, SampleFailure::kNone);
      }
    }
    for (const float temperature : {0.0f, 1.0f}) {
      const RowSampling none{.temperature = temperature, .bias = forbid, .allowed_ids = allowed};
      EXPECT_EQ(SampleRows(*backend, RandomFloats(1, 11), {none})[0].failure,
                SampleFailure::kAllForbidden);
    }
  }
}

// Extremes that must neither overflow nor lose the only sensible answer.
TEST(SampleTest, HoldsAtTheEdgesOfF32) {
  const std::unique_ptr<Backend> backend = MakeCpu("");
  const std::vector<double> uniforms = EvenUniforms(50);
  const std::vector<float> far = {-3e38f, 3e38f, 0, -1};
  for (const float temperature : {1e-45f, 1e-6f, 1.0f, 1e6f}) {
    for (const int32_t id : DrawMany(*backend, far, {.temperature = temperature}, uniforms)) {
      EXPECT_EQ(id, 1) << temperature;
    }
  }
  // All equal: the ranking is by id, and the shares are equal.
  const std::vector<float> flat(100, 7);
  const std::vector<int32_t> ids =
      DrawMany(*backend, flat, {.temperature = 1}, {0, 0.005, 0.505, 0.995, 0.9999999});
  EXPECT_THAT(ids, ::testing::ElementsAre(0, 0, 50, 99, 99));
  const std::vector<int32_t> few =
      DrawMany(*backend, flat, {.temperature = 1, .top_k = 4}, {0, 0.3, 0.6, 0.9});
  EXPECT_THAT(few, ::testing::ElementsAre(0, 1, 2, 3));
  // A share holds its lower end and not its upper one.
  const std::vector<int32_t> ends =
      DrawMany(*backend, flat, {.temperature = 1, .top_k = 4}, {0.25, 0.5, 0.75});
  EXPECT_THAT(ends, ::testing::ElementsAre(1, 2, 3));
  // Nothing is less likely than the most likely.
  const std::vector<int32_t> all =
      DrawMany(*backend, flat, {.temperature = 1, .min_p = 1}, {0.505, 0.995});
  EXPECT_THAT(all, ::testing::ElementsAre(50, 99));
}

}  // namespace
}  // namespace gatehouse
