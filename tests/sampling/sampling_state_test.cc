#include "engine/sampling/sampling_state.h"

#include <cmath>
#include <limits>
#include <map>

#include "engine/sampling/philox.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatehouse {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

constexpr float kBanned = -std::numeric_limits<float>::infinity();
const std::vector<int32_t> kEos = {2};

SamplingState StateOf(Request request) {
  if (request.prompt_ids.empty()) request.prompt_ids = {10, 11};
  EXPECT_TRUE(ValidateRequest({.vocab_size = 1000, .max_context = 1000}, request).ok());
  return SamplingState(std::make_shared<const Request>(std::move(request)), /*seed=*/42, kEos);
}

// The sum of a row's bias by token, as Sample adds it.
std::map<int32_t, float> BiasOf(const RowSampling& row) {
  std::map<int32_t, float> sums;
  for (const auto& [id, bias] : row.bias) sums[id] += bias;
  return sums;
}

TEST(SamplingStateTest, PassesTheParametersOn) {
  Request request;
  request.sampling = {.temperature = 0.5f,
                      .top_k = 40,
                      .top_p = 0.9f,
                      .min_p = 0.05f,
                      .typical_p = 0.8f,
                      .logit_bias = {{5, 1.5f}},
                      .allowed_token_ids = {5, 6}};
  request.output.top_logprobs = 3;
  SamplingState state = StateOf(request);
  const RowSampling row = state.Next();
  EXPECT_EQ(row.temperature, 0.5f);
  EXPECT_EQ(row.top_k, 40);
  EXPECT_EQ(row.top_p, 0.9f);
  EXPECT_EQ(row.min_p, 0.05f);
  EXPECT_EQ(row.typical_p, 0.8f);
  EXPECT_THAT(row.bias, ElementsAre(Pair(5, 1.5f)));
  EXPECT_THAT(row.allowed_ids, ElementsAre(5, 6));
  EXPECT_EQ(row.num_top_logprobs, 3);
  EXPECT_EQ(row.forced_id, -1);
  EXPECT_THAT(row.repeated_ids, IsEmpty());
}

TEST(SamplingStateTest, AsksForNoLogprobsUnlessTold) {
  SamplingState state = StateOf({});
  EXPECT_EQ(state.Next().num_top_logprobs, -1);
}

TEST(SamplingStateTest, DrawsByTheNumberOfTokensGenerated) {
  SamplingState state = StateOf({});
  EXPECT_EQ(state.Next().uniform, UniformAt(42, 0));
  EXPECT_EQ(state.Next().uniform, UniformAt(42, 0));  // asking twice draws nothing
  state.Append(7);
  EXPECT_EQ(state.Next().uniform, UniformAt(42, 1));
}

TEST(SamplingStateTest, CountsGeneratedTokensForFrequencyAndPresence) {
  Request request;
  request.prompt_ids = {7};  // the prompt does not count
  request.sampling = {
      .frequency_penalty = 0.5f, .presence_penalty = 0.25f, .logit_bias = {{7, 4.0f}}};
  SamplingState state = StateOf(request);
  for (const int32_t id : {7, 8, 7, 7}) state.Append(id);
  EXPECT_THAT(BiasOf(state.Next()),
              UnorderedElementsAre(Pair(7, 4.0f - 0.25f - 1.5f), Pair(8, -0.75f)));
}

TEST(SamplingStateTest, RepetitionCoversPromptAndOutputOnce) {
  Request request;
  request.prompt_ids = {4, 5, 4};
  request.sampling.repetition_penalty = 1.25f;
  SamplingState state = StateOf(request);
  EXPECT_THAT(state.Next().repeated_ids, ElementsAre(4, 5));
  state.Append(9);
  state.Append(5);
  EXPECT_THAT(state.Next().repeated_ids, ElementsAre(4, 5, 9));
  EXPECT_EQ(state.Next().repetition_penalty, 1.25f);
}

TEST(SamplingStateTest, BansEveryStopUntilTheLeastNumberOfTokens) {
  Request request;
  request.stop = {.min_new_tokens = 2, .token_ids = {30, 31}};
  SamplingState state = StateOf(request);
  const auto bans = UnorderedElementsAre(Pair(2, kBanned), Pair(30, kBanned), Pair(31, kBanned));
  EXPECT_THAT(BiasOf(state.Next()), bans);
  state.Append(5);
  EXPECT_THAT(BiasOf(state.Next()), bans);
  state.Append(5);
  EXPECT_THAT(state.Next().bias, IsEmpty());
}

TEST(SamplingStateTest, LeavesEosAloneWhenItStopsNothing) {
  Request request;
  request.stop = {.min_new_tokens = 2, .ignore_eos = true};
  SamplingState state = StateOf(request);
  EXPECT_THAT(state.Next().bias, IsEmpty());
}

TEST(SamplingStateTest, BansTheLastTokenOfABadWordThatIsAboutToComplete) {
  Request request;
  request.prompt_ids = {1, 20};
  request.sampling.bad_words = {{20, 21, 22}, {50}, {21, 60}};
  SamplingState state = StateOf(request);
  EXPECT_THAT(BiasOf(state.Next()), UnorderedElementsAre(Pair(50, kBanned)));
  state.Append(21);  // 20 of the prompt, then 21
  EXPECT_THAT(BiasOf(state.Next()),
              UnorderedElementsAre(Pair(22, kBanned), Pair(50, kBanned), Pair(60, kBanned)));
  state.Append(23);
  EXPECT_THAT(BiasOf(state.Next()), UnorderedElementsAre(Pair(50, kBanned)));
}

TEST(SamplingStateTest, PromptTargetsChooseNothing) {
  Request request;
  request.sampling = {.temperature = 1, .logit_bias = {{5, 1.5f}}};
  request.output.prompt_logprobs = 4;
  const RowSampling row = SamplingState::ForPromptTarget(request, 17);
  EXPECT_EQ(row.forced_id, 17);
  EXPECT_EQ(row.num_top_logprobs, 4);
  EXPECT_THAT(row.bias, IsEmpty());
}

}  // namespace
}  // namespace gatehouse
