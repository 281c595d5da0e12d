// What a request asks of sampling, stopping and output: values, validated against the model by
// ValidateRequest (engine/request/request.h) before anything else reads them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace gatehouse {

struct SamplingParams {
  float temperature = 1;        // >= 0; 0 is greedy
  int32_t top_k = 0;            // 0: off
  float top_p = 1;              // (0, 1]
  float min_p = 0;              // [0, 1]
  float typical_p = 1;          // (0, 1]
  float frequency_penalty = 0;  // [-2, 2], times the count among generated tokens
  float presence_penalty = 0;   // [-2, 2], once for each token generated before
  float repetition_penalty =
      1;  // (0, 10], divides positive and multiplies negative logits of prompt and output tokens
  std::optional<uint64_t> seed;                       // absent: drawn at admission
  int32_t n = 1;                                      // outputs for the one prompt
  std::vector<std::pair<int32_t, float>> logit_bias;  // distinct ids
  std::vector<int32_t> allowed_token_ids;       // empty: all; ascending and distinct once validated
  std::vector<std::vector<int32_t>> bad_words;  // token sequences that must not be completed
};

struct StopParams {
  int32_t max_new_tokens =
      0;  // >= 1; prompt + new <= context. 0: not said (RequestLimits::default_max_new_tokens)
  int32_t min_new_tokens = 0;        // no stop of any kind before
  std::vector<std::string> strings;  // UTF-8, not empty
  std::vector<int32_t> token_ids;
  bool ignore_eos = false;
  bool include_stop = false;  // keep the matched stop string or token in the output text
};

struct OutputParams {
  std::optional<int32_t> top_logprobs;     // absent: none; 0: the chosen token's alone
  std::optional<int32_t> prompt_logprobs;  // the same for the prompt's tokens (the first has none)
  bool token_ids = false;                  // send the prompt's ids with `started`
  bool routed_experts = false;
  bool moe_report = false;
};

}  // namespace gatehouse
