#include "engine/request/request.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatehouse {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const RequestLimits kLimits = {.vocab_size = 1000,
                               .max_context = 64,
                               .max_top_logprobs = 20,
                               .max_stop_strings = 4,
                               .max_stop_string_bytes = 8,
                               .max_logit_bias = 3,
                               .max_bad_words = 2,
                               .max_bad_word_tokens = 5,
                               .max_stop_token_ids = 3};

Request ValidRequest() {
  Request request;
  request.prompt_ids = {1, 2, 3};
  request.stop.max_new_tokens = 8;
  return request;
}

TEST(ValidateRequestTest, TakesADefaultRequest) {
  Request request = ValidRequest();
  EXPECT_TRUE(ValidateRequest(kLimits, request).ok());
}

TEST(ValidateRequestTest, FillsAbsentMaxNewTokensWithTheRestOfTheContext) {
  Request request = ValidRequest();
  request.stop.max_new_tokens = 0;
  ASSERT_TRUE(ValidateRequest(kLimits, request).ok());
  EXPECT_EQ(request.stop.max_new_tokens, 61);
}

TEST(ValidateRequestTest, FillsItWithTheModelsDefaultWhereThatFits) {
  RequestLimits limits = kLimits;
  for (const auto& [by_default, expected] : {std::pair{7, 7}, {61, 61}, {1000, 61}}) {
    limits.default_max_new_tokens = by_default;
    Request request = ValidRequest();
    request.stop.max_new_tokens = 0;
    ASSERT_TRUE(ValidateRequest(limits, request).ok());
    EXPECT_EQ(request.stop.max_new_tokens, expected);
  }
}

TEST(ValidateRequestTest, PutsAllowedIdsInOrder) {
  Request request = ValidRequest();
  request.sampling.allowed_token_ids = {9, 2, 9, 4, 2};
  ASSERT_TRUE(ValidateRequest(kLimits, request).ok());
  EXPECT_EQ(request.sampling.allowed_token_ids, (std::vector<int32_t>{2, 4, 9}));
}

TEST(ValidateRequestTest, ListsThePromptOnceForTheRepetitionPenalty) {
  Request request = ValidRequest();
  request.prompt_ids = {7, 3, 7, 7, 5};
  ASSERT_TRUE(ValidateRequest(kLimits, request).ok());
  EXPECT_TRUE(request.distinct_prompt_ids.empty());
  request.sampling.repetition_penalty = 1.5f;
  ASSERT_TRUE(ValidateRequest(kLimits, request).ok());
  EXPECT_EQ(request.distinct_prompt_ids, (std::vector<int32_t>{3, 5, 7}));
}

TEST(ValidateRequestTest, TakesEveryValueOnItsLimit) {
  Request request = ValidRequest();
  request.prompt_ids = std::vector<int32_t>(63, 999);
  request.sampling = {.temperature = 0,
                      .top_k = std::numeric_limits<int32_t>::max(),
                      .top_p = 1,
                      .min_p = 1,
                      .typical_p = 1,
                      .frequency_penalty = -2,
                      .presence_penalty = 2,
                      .repetition_penalty = 10,
                      .seed = ~uint64_t{0},
                      .logit_bias = {{0, -100.0f}, {999, 100.0f}, {5, 0.0f}},
                      .allowed_token_ids = {0, 999},
                      .bad_words = {{1}, {2, 3, 4, 5, 6}}};
  request.stop = {.max_new_tokens = 1,
                  .min_new_tokens = 1,
                  .strings = {"12345678", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf", "\xc2\x80"},
                  .token_ids = {999, 0, 1}};
  request.output = {.top_logprobs = 20, .prompt_logprobs = 0};
  EXPECT_EQ(ValidateRequest(kLimits, request), absl::OkStatus());
}

struct BadCase {
  const char* path;                      // the whole text before ':'
  const char* got;                       // what was asked
  const char* limit;                     // and what is allowed
  std::function<void(Request&)> damage;  // of a valid request
};

std::vector<BadCase> BadCases() {
  const float nan = std::nanf("");
  const float inf = std::numeric_limits<float>::infinity();
  return {
      {"input", "0 prompt", "63", [](Request& r) { r.prompt_ids.clear(); }},
      {"input", "64 prompt", "63", [](Request& r) { r.prompt_ids.assign(64, 1); }},
      {"tokens.ids[1]", "1000", "999", [](Request& r) { r.prompt_ids[1] = 1000; }},
      {"tokens.ids[0]", "-1", "999", [](Request& r) { r.prompt_ids[0] = -1; }},
      {"sampling.temperature", "-0.5", "[0", [](Request& r) { r.sampling.temperature = -0.5f; }},
      {"sampling.temperature", "nan", "[0", [=](Request& r) { r.sampling.temperature = nan; }},
      {"sampling.temperature", "inf", "[0", [=](Request& r) { r.sampling.temperature = inf; }},
      {"sampling.top_k", "-1", "[0", [](Request& r) { r.sampling.top_k = -1; }},
      {"sampling.top_p", "0", "(0, 1]", [](Request& r) { r.sampling.top_p = 0; }},
      {"sampling.top_p", "nan", "(0, 1]", [=](Request& r) { r.sampling.top_p = nan; }},
      {"sampling.n", "0", "[1, 32]", [](Request& r) { r.sampling.n = 0; }},
      {"sampling.n", "33", "[1, 32]", [](Request& r) { r.sampling.n = 33; }},
      {"sampling.min_p", "1.5", "[0, 1]", [](Request& r) { r.sampling.min_p = 1.5f; }},
      {"sampling.typical_p", "0", "(0, 1]", [](Request& r) { r.sampling.typical_p = 0; }},
      {"sampling.frequency_penalty", "2.5", "[-2, 2]",
       [](Request& r) { r.sampling.frequency_penalty = 2.5f; }},
      {"sampling.presence_penalty", "-3", "[-2, 2]",
       [](Request& r) { r.sampling.presence_penalty = -3; }},
      {"sampling.repetition_penalty", "0", "(0, 10]",
       [](Request& r) { r.sampling.repetition_penalty = 0; }},
      {"sampling.logit_bias", "4 entries", "3",
       [](Request& r) {
         r.sampling.logit_bias = {{1, 0}, {2, 0}, {3, 0}, {4, 0}};
       }},
      {"sampling.logit_bias[1000]", "1000", "999",
       [](Request& r) {
         r.sampling.logit_bias = {{1000, 0}};
       }},
      {"sampling.logit_bias[7]", "-inf", "[-100",
       [=](Request& r) {
         r.sampling.logit_bias = {{7, -inf}};
       }},
      {"sampling.logit_bias", "7 twice", "1",
       [](Request& r) {
         r.sampling.logit_bias = {{7, 1}, {8, 1}, {7, 2}};
       }},
      {"sampling.allowed_token_ids[1]", "1000", "999",
       [](Request& r) {
         r.sampling.allowed_token_ids = {1, 1000};
       }},
      {"sampling.allowed_token_ids", "1001 entries", "1000",
       [](Request& r) { r.sampling.allowed_token_ids.assign(1001, 1); }},
      {"sampling.bad_words", "3 entries", "2",
       [](Request& r) {
         r.sampling.bad_words = {{1}, {2}, {3}};
       }},
      {"sampling.bad_words[0]", "got 6", "5",
       [](Request& r) { r.sampling.bad_words = {std::vector<int32_t>(6, 1)}; }},
      {"sampling.bad_words[1]", "got 0", "5",
       [](Request& r) {
         r.sampling.bad_words = {{1}, {}};
       }},
      {"sampling.bad_words[0][1]", "1000", "999",
       [](Request& r) {
         r.sampling.bad_words = {{1, 1000}};
       }},
      {"stop.max_new_tokens", "62", "61", [](Request& r) { r.stop.max_new_tokens = 62; }},
      {"stop.max_new_tokens", "-1", "61", [](Request& r) { r.stop.max_new_tokens = -1; }},
      {"stop.min_new_tokens", "9", "8", [](Request& r) { r.stop.min_new_tokens = 9; }},
      {"stop.min_new_tokens", "-1", "8", [](Request& r) { r.stop.min_new_tokens = -1; }},
      {"stop.strings", "5 entries", "4",
       [](Request& r) {
         r.stop.strings = {"a", "b", "c", "d", "e"};
       }},
      {"stop.strings[1]", "0 bytes", "8",
       [](Request& r) {
         r.stop.strings = {"a", ""};
       }},
      {"stop.strings[0]", "9 bytes", "8", [](Request& r) { r.stop.strings = {"123456789"}; }},
      {"stop.strings[0]", "not UTF-8", "UTF-8", [](Request& r) { r.stop.strings = {"\xff"}; }},
      {"stop.token_ids", "4 entries", "3", [](Request& r) { r.stop.token_ids.assign(4, 1); }},
      {"stop.token_ids[0]", "-5", "999", [](Request& r) { r.stop.token_ids = {-5}; }},
      {"output.top_logprobs", "21", "20", [](Request& r) { r.output.top_logprobs = 21; }},
      {"output.top_logprobs", "-1", "20", [](Request& r) { r.output.top_logprobs = -1; }},
      {"output.prompt_logprobs", "21", "20", [](Request& r) { r.output.prompt_logprobs = 21; }},
  };
}

TEST(ValidateRequestTest, RefusesWithThePathTheValueAndTheLimit) {
  for (const BadCase& bad : BadCases()) {
    Request request = ValidRequest();
    bad.damage(request);
    const absl::Status status = ValidateRequest(kLimits, request);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.path;
    EXPECT_THAT(std::string(status.message()), AllOf(StartsWith(std::string(bad.path) + ": "),
                                                     HasSubstr(bad.got), HasSubstr(bad.limit)));
  }
}

TEST(ValidateRequestTest, RefusesEveryKindOfInvalidUtf8InStopStrings) {
  for (const char* text : {"\x80", "a\xc3", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80",
                           "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xe2\x82"}) {
    Request request = ValidRequest();
    request.stop.strings = {text};
    EXPECT_FALSE(ValidateRequest(kLimits, request).ok()) << text;
  }
}

}  // namespace
}  // namespace gatehouse
