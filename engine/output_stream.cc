#include "engine/output_stream.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/sampling/philox.h"

namespace gatehouse {

TokenOutput TokenOutputOf(const Tokenizer& tokenizer, int32_t token_id, const RowSample* logprobs) {
  TokenOutput token{.id = token_id, .bytes = std::string(tokenizer.TokenBytes(token_id))};
  if (logprobs != nullptr) {
    token.logprob = logprobs->logprob;
    token.top = logprobs->top;
  }
  return token;
}

OutputStream::OutputStream(const OutputStreamSetup& setup)
    : request_(setup.request),
      tokenizer_(setup.tokenizer),
      output_index_(setup.output_index),
      run_(setup.run),
      sampling_(setup.request, SeedOfOutput(setup.seed, setup.output_index), setup.eos_token_ids),
      decoder_(*setup.tokenizer),
      stop_matcher_(setup.request->stop.strings, setup.request->stop.include_stop) {}

RowSampling OutputStream::NextSampling() {
  RowSampling row = sampling_.Next();
  if (run_ != nullptr && run_->wants_more()) {
    row.num_top_logprobs = std::max(row.num_top_logprobs, BoundedRun::kTopTokens);
  }
  return row;
}

DeltaEvent OutputStream::Append(const RowSample& sample, std::optional<FinishReason> reason,
                                TimePoint now) {
  if (num_tokens_ == 0) first_token_ = now;
  last_token_ = now;
  DeltaEvent event{.output_index = output_index_, .text = TextOf(sample.token_id, reason)};
  ++num_tokens_;
  sampling_.Append(sample.token_id);
  const std::optional<int32_t>& num_top = request_->output.top_logprobs;
  event.tokens.push_back(
      TokenOutputOf(*tokenizer_, sample.token_id, num_top.has_value() ? &sample : nullptr));
  if (run_ != nullptr && run_->wants_more()) {
    run_->Append(sample);
    std::vector<TokenLogprob>& top = event.tokens[0].top;  // no more than were asked for
    top.resize(std::min(top.size(), static_cast<size_t>(num_top.value_or(0))));
  }
  return event;
}

FinishedEvent OutputStream::Finished() const {
  return {.output_index = output_index_,
          .reason = *finish_reason_,
          .matched_stop = stop_matcher_.matched().value_or(""),
          .matched_stop_token_id = matched_stop_token_id_,
          .num_generated_tokens = num_tokens_};
}

// The text that this token completes, and all that is left when it is the last. A stop string ends
// the output too, unless a stopping token has just done so.
std::string OutputStream::TextOf(int32_t token_id, std::optional<FinishReason> reason) {
  finish_reason_ = reason;
  if (reason == FinishReason::kStopEos || reason == FinishReason::kStopToken) {
    matched_stop_token_id_ = token_id;
    return TextWithStopToken(token_id);
  }
  const bool may_stop = num_tokens_ >= request_->stop.min_new_tokens;
  std::string piece = decoder_.Append(token_id);
  if (reason.has_value()) piece += decoder_.Flush();
  std::string text = stop_matcher_.Append(piece, may_stop);
  if (stop_matcher_.matched().has_value()) {
    finish_reason_ = FinishReason::kStopString;
  } else if (reason.has_value()) {
    text += stop_matcher_.Flush();
  }
  return text;
}

// Whoever asks for the token gets it even if it is special, which the decoder leaves out. What the
// decoder held back is text from before the token: a stop string in it came first.
std::string OutputStream::TextWithStopToken(int32_t token_id) {
  const bool is_special = tokenizer_->IsSpecial(token_id);
  if (request_->stop.include_stop && !is_special) {
    std::string text = stop_matcher_.Flush() + decoder_.Append(token_id);
    return text + decoder_.Flush();
  }
  const bool might_stop_before = num_tokens_ > request_->stop.min_new_tokens;
  std::string text = stop_matcher_.Append(decoder_.Flush(), might_stop_before);
  if (stop_matcher_.matched().has_value()) {
    finish_reason_ = FinishReason::kStopString;
    matched_stop_token_id_.reset();
    return text;
  }
  text += stop_matcher_.Flush();
  if (request_->stop.include_stop) text += tokenizer_->TokenBytes(token_id);
  return text;
}

}  // namespace gatehouse
