#include "engine/request_stream.h"

#include <algorithm>
#include <utility>

#include "kernels/base/check.h"

namespace gatehouse {
namespace {

RoutedExperts RoutesOfRow(const std::vector<RoutePlan>& routes, int32_t row) {
  RoutedExperts routed;
  for (const RoutePlan& route : routes) {
    const int64_t begin = int64_t{row} * route.top_k, end = begin + route.top_k;
    routed.expert_ids.insert(routed.expert_ids.end(), route.slot_experts.begin() + begin,
                             route.slot_experts.begin() + end);
    routed.weights.insert(routed.weights.end(), route.slot_weights.begin() + begin,
                          route.slot_weights.begin() + end);
  }
  return routed;
}

}  // namespace

RequestStream::RequestStream(const RequestStreamSetup& setup)
    : request_(setup.request),
      sink_(setup.sink),
      tokenizer_(setup.tokenizer),
      submitted_(setup.submitted),
      sampling_(setup.request, setup.request->sampling.seed.value_or(setup.seed),
                setup.eos_token_ids),
      decoder_(*setup.tokenizer),
      stop_matcher_(setup.request->stop.strings, setup.request->stop.include_stop) {
  stats_.num_prompt_tokens = static_cast<int32_t>(request_->prompt_ids.size());
}

RequestStream::~RequestStream() {
  GATEHOUSE_CHECK(closed_) << "request " << request_->id << " was not closed";
}

RowSampling RequestStream::SamplingFor(const LogitRow& row) {
  if (row.prompt_target >= 0) return SamplingState::ForPromptTarget(*request_, row.prompt_target);
  return sampling_.Next();
}

std::optional<absl::Status> RequestStream::Deliver(const SequenceUpdate& update,
                                                   const FinishedStep& step,
                                                   StepObserver& observer) {
  if (!update.status.ok()) return update.status;
  CountRoutes(update, *step.result);
  const bool reader_is_there = PushStarted(update, step) && PushPrompt(update, step) &&
                               PushToken(update, step, observer) && PushFinished(update, step);
  if (!reader_is_there) return absl::CancelledError("the reader is gone or too slow");
  if (finish_reason_.has_value()) return absl::OkStatus();
  return std::nullopt;
}

void RequestStream::Close(absl::Status status, TimePoint now) {
  GATEHOUSE_CHECK(!closed_) << "request " << request_->id << " was closed before";
  closed_ = true;
  stats_.status = status;
  stats_.total_seconds = ToSeconds(now - submitted_);
  if (!started_) stats_.queue_seconds = stats_.total_seconds;
  sink_->Close(std::move(status));
}

bool RequestStream::PushStarted(const SequenceUpdate& update, const FinishedStep& step) {
  if (started_) return true;
  started_ = true;
  stats_.queue_seconds = ToSeconds(step.begin - submitted_);
  StartedEvent event{.num_prompt_tokens = stats_.num_prompt_tokens,
                     .num_cached_prompt_tokens = update.num_cached_prompt_tokens};
  if (request_->output.token_ids) event.prompt_token_ids = request_->prompt_ids;
  return sink_->Push(std::move(event));
}

bool RequestStream::PushPrompt(const SequenceUpdate& update, const FinishedStep& step) {
  const OutputParams& output = request_->output;
  const int32_t num_positions =
      std::min(update.num_new_rows, stats_.num_prompt_tokens - update.first_new_position);
  if (num_positions <= 0 || (!output.prompt_logprobs.has_value() && !output.routed_experts)) {
    return true;
  }
  PromptEvent event{.first_position = update.first_new_position};
  for (int32_t i = 0; i < num_positions; ++i) {
    const int32_t token_id = request_->prompt_ids[update.first_new_position + i];
    TokenOutput token =
        OutputOf(token_id, next_prompt_logprobs_.has_value() ? &*next_prompt_logprobs_ : nullptr);
    if (output.routed_experts) {
      token.routed_experts = RoutesOfRow(step.result->routes, update.first_new_row + i);
    }
    event.tokens.push_back(std::move(token));
    if (i < update.num_prompt_targets) {
      next_prompt_logprobs_ = step.result->samples[update.first_logit_row + i];
    }
  }
  return sink_->Push(std::move(event));
}

bool RequestStream::PushToken(const SequenceUpdate& update, const FinishedStep& step,
                              StepObserver& observer) {
  if (update.sample_idx < 0) return true;
  const RowSample& sample = step.result->samples[update.sample_idx];
  NoteTokenTime(step.end, observer);
  DeltaEvent event;
  event.text = TextOf(sample.token_id, update.finish_reason);
  sampling_.Append(sample.token_id);
  stats_.num_generated_tokens = update.num_generated_tokens;
  TokenOutput token =
      OutputOf(sample.token_id, request_->output.top_logprobs.has_value() ? &sample : nullptr);
  if (request_->output.routed_experts) {
    token.routed_experts =
        RoutesOfRow(step.result->routes, step.plan->logit_rows[update.sample_idx].row);
  }
  event.tokens.push_back(std::move(token));
  return sink_->Push(std::move(event));
}

bool RequestStream::PushFinished(const SequenceUpdate& update, const FinishedStep& step) {
  if (!finish_reason_.has_value()) return true;
  FinishedEvent event{.reason = *finish_reason_,
                      .matched_stop = stop_matcher_.matched().value_or(""),
                      .matched_stop_token_id = matched_stop_token_id_,
                      .num_prompt_tokens = stats_.num_prompt_tokens,
                      .num_generated_tokens = stats_.num_generated_tokens,
                      .num_preemptions = update.num_preemptions,
                      .queue_seconds = stats_.queue_seconds,
                      .time_to_first_token_seconds = stats_.time_to_first_token_seconds,
                      .total_seconds = ToSeconds(step.end - submitted_)};
  if (request_->output.moe_report) event.moe_report = moe_report_;
  return sink_->Push(std::move(event));
}

// The text that this token completes, and all that is left when it is the last. A stop string ends
// the request too, unless a stopping token has just done so.
std::string RequestStream::TextOf(int32_t token_id, std::optional<FinishReason> reason) {
  finish_reason_ = reason;
  if (reason == FinishReason::kStopEos || reason == FinishReason::kStopToken) {
    matched_stop_token_id_ = token_id;
    return TextWithStopToken(token_id);
  }
  const bool may_stop = stats_.num_generated_tokens >= request_->stop.min_new_tokens;
  std::string text = stop_matcher_.Append(decoder_.Append(token_id), may_stop);
  if (stop_matcher_.matched().has_value()) {
    finish_reason_ = FinishReason::kStopString;
  } else if (reason.has_value()) {
    text += stop_matcher_.Flush() + decoder_.Flush();
  }
  return text;
}

// Whoever asks for the token gets it even if it is special, which the decoder leaves out.
std::string RequestStream::TextWithStopToken(int32_t token_id) {
  std::string text = stop_matcher_.Flush();
  const bool is_special = tokenizer_->IsSpecial(token_id);
  if (request_->stop.include_stop && !is_special) text += decoder_.Append(token_id);
  text += decoder_.Flush();
  if (request_->stop.include_stop && is_special) text += tokenizer_->TokenBytes(token_id);
  return text;
}

TokenOutput RequestStream::OutputOf(int32_t token_id, const RowSample* logprobs) const {
  TokenOutput token{.id = token_id, .bytes = std::string(tokenizer_->TokenBytes(token_id))};
  if (logprobs != nullptr) {
    token.logprob = logprobs->logprob;
    token.top = logprobs->top;
  }
  return token;
}

// Rows computed again after a preemption are not counted again.
void RequestStream::CountRoutes(const SequenceUpdate& update, const StepResult& result) {
  // Without new rows (a preempted prompt being computed again) first_new_row may lie behind the
  // step.
  if (!request_->output.moe_report || update.num_new_rows == 0) return;
  for (const RoutePlan& route : result.routes) {
    const int32_t begin = update.first_new_row, end = begin + update.num_new_rows;
    moe_report_.num_assignments += int64_t{update.num_new_rows} * route.top_k;
    moe_report_.num_kept += route.token_begin[end] - route.token_begin[begin];
  }
  moe_report_.num_dropped = moe_report_.num_assignments - moe_report_.num_kept;
}

void RequestStream::NoteTokenTime(TimePoint now, StepObserver& observer) {
  if (stats_.time_to_first_token_seconds < 0) {
    stats_.time_to_first_token_seconds = ToSeconds(now - submitted_);
    observer.OnFirstToken(stats_.time_to_first_token_seconds);
  } else {
    observer.OnToken(ToSeconds(now - last_token_));
  }
  last_token_ = now;
}

}  // namespace gatehouse
