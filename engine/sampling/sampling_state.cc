#include "engine/sampling/sampling_state.h"

#include <algorithm>
#include <limits>

#include "engine/sampling/philox.h"

namespace gatehouse {

SamplingState::SamplingState(std::shared_ptr<const Request> request, uint64_t seed,
                             std::span<const int32_t> eos_token_ids)
    : request_(std::move(request)), seed_(seed), stop_ids_(request_->stop.token_ids) {
  const SamplingParams& params = request_->sampling;
  if (!request_->stop.ignore_eos) {
    stop_ids_.insert(stop_ids_.end(), eos_token_ids.begin(), eos_token_ids.end());
  }
  bias_ = params.logit_bias;
  num_lasting_ = bias_.size();
  for (const std::vector<int32_t>& word : params.bad_words) {
    history_tokens_ = std::max(history_tokens_, word.size() - 1);
  }
  repeated_ids_ = request_->distinct_prompt_ids;
  const std::vector<int32_t>& prompt = request_->prompt_ids;
  history_.assign(prompt.end() - std::min(prompt.size(), history_tokens_), prompt.end());
}

RowSampling SamplingState::Next() {
  bias_.resize(num_lasting_);
  BanStops();
  BanBadWords();
  const SamplingParams& params = request_->sampling;
  return {.temperature = params.temperature,
          .top_k = params.top_k,
          .top_p = params.top_p,
          .min_p = params.min_p,
          .typical_p = params.typical_p,
          .uniform = UniformAt(seed_, static_cast<uint64_t>(num_generated_)),
          .repeated_ids = repeated_ids_,
          .repetition_penalty = params.repetition_penalty,
          .bias = bias_,
          .allowed_ids = params.allowed_token_ids,
          .num_top_logprobs = request_->output.top_logprobs.value_or(-1)};
}

void SamplingState::Append(int32_t token_id) {
  ++num_generated_;
  bias_.resize(num_lasting_);
  NoteRepetition(token_id);
  NotePenalties(token_id);
  NoteHistory(token_id);
}

RowSampling SamplingState::ForPromptTarget(const Request& request, int32_t target) {
  return {.forced_id = target, .num_top_logprobs = request.output.prompt_logprobs.value_or(-1)};
}

void SamplingState::NoteRepetition(int32_t token_id) {
  if (request_->sampling.repetition_penalty == 1) return;
  const std::vector<int32_t>& prompt = request_->distinct_prompt_ids;
  if (std::binary_search(prompt.begin(), prompt.end(), token_id)) return;
  if (generated_.insert(token_id).second) repeated_ids_.push_back(token_id);
}

void SamplingState::NotePenalties(int32_t token_id) {
  const SamplingParams& params = request_->sampling;
  if (params.frequency_penalty == 0 && params.presence_penalty == 0) return;
  const auto [entry, is_first] = token_to_penalty_.try_emplace(token_id, num_lasting_);
  if (is_first) {
    bias_.emplace_back(token_id, -params.presence_penalty);
    ++num_lasting_;
  }
  bias_[entry->second].second -= params.frequency_penalty;
}

void SamplingState::NoteHistory(int32_t token_id) {
  if (history_tokens_ == 0) return;
  if (history_.size() == history_tokens_) history_.erase(history_.begin());
  history_.push_back(token_id);
}

void SamplingState::BanStops() {
  if (num_generated_ >= request_->stop.min_new_tokens) return;
  for (const int32_t token_id : stop_ids_) Ban(token_id);
}

// The last token of each word whose other tokens are the last ones of the text.
void SamplingState::BanBadWords() {
  for (const std::vector<int32_t>& word : request_->sampling.bad_words) {
    const size_t num_before = word.size() - 1;
    if (num_before > history_.size()) continue;
    const auto tail = history_.end() - static_cast<int64_t>(num_before);
    if (std::equal(tail, history_.end(), word.begin())) Ban(word.back());
  }
}

void SamplingState::Ban(int32_t token_id) {
  bias_.emplace_back(token_id, -std::numeric_limits<float>::infinity());
}

}  // namespace gatehouse
