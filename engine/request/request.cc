#include "engine/request/request.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string_view>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"
#include "kernels/base/utf8.h"

namespace gatehouse {
namespace {

constexpr float kMaxLogitBias = 100;  // OpenAI's bound: enough to force or forbid a token
constexpr float kMaxPenalty = 2;      // OpenAI's bound
constexpr float kMaxRepetitionPenalty = 10;

struct FloatRange {
  double low = 0;
  double high = 0;
  bool low_included = true;
};

// A NaN fails every comparison, so it is refused too.
absl::Status CheckFloat(const char* path, float value, const FloatRange& range) {
  const bool above = range.low_included ? value >= range.low : value > range.low;
  if (above && value <= range.high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("%s: got %g, must be in %c%g, %g]", path, value,
                                                    range.low_included ? '[' : '(', range.low,
                                                    range.high));
}

absl::Status CheckCount(const std::string& path, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: got %d, must be in [%d, %d]", path, value, low, high));
}

absl::Status CheckSize(const char* path, size_t size, int64_t limit) {
  if (size <= static_cast<size_t>(limit)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: got %d entries, limit %d", path, size, limit));
}

absl::Status CheckTokenIds(const std::string& path, const std::vector<int32_t>& ids,
                           int32_t vocab_size) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "%s[%d]: got token id %d, must be in [0, %d]", path, i, ids[i], vocab_size - 1));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPrompt(const RequestLimits& limits, const std::vector<int32_t>& prompt_ids) {
  // One position is left for the token to generate.
  if (prompt_ids.empty() || prompt_ids.size() >= static_cast<size_t>(limits.max_context)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("input: got %d prompt tokens, must be in [1, %d] (context of %d tokens)",
                        prompt_ids.size(), limits.max_context - 1, limits.max_context));
  }
  return CheckTokenIds("tokens.ids", prompt_ids, limits.vocab_size);
}

absl::Status CheckLogitBias(const RequestLimits& limits, const SamplingParams& sampling) {
  GATEHOUSE_RETURN_IF_ERROR(
      CheckSize("sampling.logit_bias", sampling.logit_bias.size(), limits.max_logit_bias));
  std::vector<int32_t> ids;
  for (const auto& [id, bias] : sampling.logit_bias) {
    const std::string path = absl::StrFormat("sampling.logit_bias[%d]", id);
    GATEHOUSE_RETURN_IF_ERROR(CheckCount(path, id, 0, limits.vocab_size - 1));
    GATEHOUSE_RETURN_IF_ERROR(CheckFloat(path.c_str(), bias, {-kMaxLogitBias, kMaxLogitBias}));
    ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  const auto twin = std::adjacent_find(ids.begin(), ids.end());
  if (twin != ids.end()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("sampling.logit_bias: got token id %d twice, limit 1", *twin));
  }
  return absl::OkStatus();
}

absl::Status CheckBadWords(const RequestLimits& limits, const SamplingParams& sampling) {
  GATEHOUSE_RETURN_IF_ERROR(
      CheckSize("sampling.bad_words", sampling.bad_words.size(), limits.max_bad_words));
  for (size_t i = 0; i < sampling.bad_words.size(); ++i) {
    const std::string path = absl::StrFormat("sampling.bad_words[%d]", i);
    const std::vector<int32_t>& word = sampling.bad_words[i];
    GATEHOUSE_RETURN_IF_ERROR(
        CheckCount(path, static_cast<int64_t>(word.size()), 1, limits.max_bad_word_tokens));
    GATEHOUSE_RETURN_IF_ERROR(CheckTokenIds(path, word, limits.vocab_size));
  }
  return absl::OkStatus();
}

absl::Status CheckSampling(const RequestLimits& limits, const SamplingParams& sampling) {
  constexpr double kHuge = 1e6;  // any finite temperature that still tells tokens apart
  GATEHOUSE_RETURN_IF_ERROR(CheckFloat("sampling.temperature", sampling.temperature, {0, kHuge}));
  GATEHOUSE_RETURN_IF_ERROR(CheckCount("sampling.top_k", sampling.top_k, 0, INT32_MAX));
  GATEHOUSE_RETURN_IF_ERROR(CheckFloat("sampling.top_p", sampling.top_p, {0, 1, false}));
  GATEHOUSE_RETURN_IF_ERROR(CheckFloat("sampling.min_p", sampling.min_p, {0, 1}));
  GATEHOUSE_RETURN_IF_ERROR(CheckFloat("sampling.typical_p", sampling.typical_p, {0, 1, false}));
  GATEHOUSE_RETURN_IF_ERROR(CheckFloat("sampling.frequency_penalty", sampling.frequency_penalty,
                                       {-kMaxPenalty, kMaxPenalty}));
  GATEHOUSE_RETURN_IF_ERROR(CheckFloat("sampling.presence_penalty", sampling.presence_penalty,
                                       {-kMaxPenalty, kMaxPenalty}));
  GATEHOUSE_RETURN_IF_ERROR(CheckFloat("sampling.repetition_penalty", sampling.repetition_penalty,
                                       {0, kMaxRepetitionPenalty, false}));
  GATEHOUSE_RETURN_IF_ERROR(CheckCount("sampling.n", sampling.n, 1, limits.max_outputs));
  GATEHOUSE_RETURN_IF_ERROR(CheckLogitBias(limits, sampling));
  GATEHOUSE_RETURN_IF_ERROR(CheckSize("sampling.allowed_token_ids",
                                      sampling.allowed_token_ids.size(), limits.vocab_size));
  GATEHOUSE_RETURN_IF_ERROR(
      CheckTokenIds("sampling.allowed_token_ids", sampling.allowed_token_ids, limits.vocab_size));
  return CheckBadWords(limits, sampling);
}

absl::Status CheckStop(const RequestLimits& limits, int32_t num_prompt_tokens,
                       const StopParams& stop) {
  const int32_t room = limits.max_context - num_prompt_tokens;
  if (stop.max_new_tokens < 1 || stop.max_new_tokens > room) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "stop.max_new_tokens: got %d, must be in [1, %d] (%d prompt tokens in a context of %d)",
        stop.max_new_tokens, room, num_prompt_tokens, limits.max_context));
  }
  GATEHOUSE_RETURN_IF_ERROR(
      CheckCount("stop.min_new_tokens", stop.min_new_tokens, 0, stop.max_new_tokens));
  GATEHOUSE_RETURN_IF_ERROR(
      CheckSize("stop.strings", stop.strings.size(), limits.max_stop_strings));
  for (size_t i = 0; i < stop.strings.size(); ++i) {
    const std::string path = absl::StrFormat("stop.strings[%d]", i);
    const auto num_bytes = static_cast<int64_t>(stop.strings[i].size());
    if (num_bytes < 1 || num_bytes > limits.max_stop_string_bytes) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "%s: got %d bytes, must be in [1, %d]", path, num_bytes, limits.max_stop_string_bytes));
    }
    if (FindInvalidUtf8(stop.strings[i]) < stop.strings[i].size()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s: got bytes that are not UTF-8, must be UTF-8", path));
    }
  }
  GATEHOUSE_RETURN_IF_ERROR(
      CheckSize("stop.token_ids", stop.token_ids.size(), limits.max_stop_token_ids));
  return CheckTokenIds("stop.token_ids", stop.token_ids, limits.vocab_size);
}

absl::Status CheckOutput(const RequestLimits& limits, const OutputParams& output) {
  if (output.top_logprobs.has_value()) {
    GATEHOUSE_RETURN_IF_ERROR(
        CheckCount("output.top_logprobs", *output.top_logprobs, 0, limits.max_top_logprobs));
  }
  if (output.prompt_logprobs.has_value()) {
    GATEHOUSE_RETURN_IF_ERROR(
        CheckCount("output.prompt_logprobs", *output.prompt_logprobs, 0, limits.max_top_logprobs));
  }
  return absl::OkStatus();
}

void SortDistinct(std::vector<int32_t>& ids) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
}

}  // namespace

absl::Status ValidateRequest(const RequestLimits& limits, Request& request) {
  GATEHOUSE_RETURN_IF_ERROR(CheckPrompt(limits, request.prompt_ids));
  // CheckPrompt has bounded the length by max_context, so it fits.
  const auto num_prompt_tokens = static_cast<int32_t>(request.prompt_ids.size());
  if (request.stop.max_new_tokens == 0) {
    const int32_t room = limits.max_context - num_prompt_tokens;
    request.stop.max_new_tokens =
        limits.default_max_new_tokens == 0 ? room : std::min(limits.default_max_new_tokens, room);
  }
  GATEHOUSE_RETURN_IF_ERROR(CheckSampling(limits, request.sampling));
  GATEHOUSE_RETURN_IF_ERROR(CheckStop(limits, num_prompt_tokens, request.stop));
  SortDistinct(request.sampling.allowed_token_ids);
  request.distinct_prompt_ids.clear();
  if (request.sampling.repetition_penalty != 1) {
    request.distinct_prompt_ids = request.prompt_ids;
    SortDistinct(request.distinct_prompt_ids);
  }
  return CheckOutput(limits, request.output);
}

}  // namespace gatehouse
