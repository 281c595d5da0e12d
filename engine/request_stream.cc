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
      submitted_(setup.submitted) {
  for (int32_t i = 0; i < request_->sampling.n; ++i) {
    outputs_.push_back(std::make_unique<OutputStream>(
        OutputStreamSetup{.request = request_,
                          .tokenizer = tokenizer_,
                          .eos_token_ids = setup.eos_token_ids,
                          .seed = request_->sampling.seed.value_or(setup.seed),
                          .output_index = i,
                          .run = i == 0 ? setup.run : nullptr}));
  }
  stats_.num_prompt_tokens = static_cast<int32_t>(request_->prompt_ids.size());
  stats_.tenant = tenant_name();
}

RequestStream::~RequestStream() {
  GATEHOUSE_CHECK(closed_) << "request " << request_->id << " was not closed";
}

RowSampling RequestStream::SamplingFor(const LogitRow& row) {
  if (row.prompt_target >= 0) return SamplingState::ForPromptTarget(*request_, row.prompt_target);
  return outputs_[row.output_index]->NextSampling();
}

std::optional<absl::Status> RequestStream::Deliver(const SequenceUpdate& update,
                                                   const FinishedStep& step,
                                                   StepObserver& observer) {
  if (!update.status.ok()) return update.status;
  CountRoutes(update, *step.result);
  const bool reader_is_there = PushStarted(update, step) && PushPrompt(update, step) &&
                               PushToken(update, step, observer) && PushFinished(update, step);
  if (!reader_is_there) return absl::CancelledError("the reader is gone or too slow");
  if (num_finished_ == request_->sampling.n) return absl::OkStatus();
  return std::nullopt;
}

void RequestStream::Close(absl::Status status, TimePoint now, StepObserver& observer) {
  GATEHOUSE_CHECK(!closed_) << "request " << request_->id << " was closed before";
  closed_ = true;
  stats_.status = status;
  stats_.total_seconds = ToSeconds(now - submitted_);
  if (!started_) stats_.queue_seconds = stats_.total_seconds;
  observer.OnRequestEnd(stats_);
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
        TokenOutputOf(*tokenizer_, token_id,
                      next_prompt_logprobs_.has_value() ? &*next_prompt_logprobs_ : nullptr);
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
  OutputStream& output = *outputs_[update.output_index];
  const TimePoint last_token = output.last_token();
  DeltaEvent event =
      output.Append(step.result->samples[update.sample_idx], update.finish_reason, step.end);
  if (request_->output.routed_experts) {
    event.tokens[0].routed_experts =
        RoutesOfRow(step.result->routes, step.plan->logit_rows[update.sample_idx].row);
  }
  ++stats_.num_generated_tokens;
  NoteTokenTime(output, last_token, observer);
  return sink_->Push(std::move(event));
}

bool RequestStream::PushFinished(const SequenceUpdate& update, const FinishedStep& step) {
  OutputStream& output = *outputs_[update.output_index];
  if (!output.finish_reason().has_value()) return true;
  ++num_finished_;
  FinishedEvent event = output.Finished();
  event.num_prompt_tokens = stats_.num_prompt_tokens;
  event.num_preemptions = update.num_preemptions;
  event.queue_seconds = stats_.queue_seconds;
  event.time_to_first_token_seconds = ToSeconds(output.first_token() - submitted_);
  event.total_seconds = ToSeconds(step.end - submitted_);
  if (request_->output.moe_report) {
    event.moe_report =
        MoeReport{.mode = request_->mode,
                  .policy_version = request_->policy == nullptr ? 0 : request_->policy->version,
                  .routes = prompt_routes_};
    event.moe_report->routes += output.routes();
  }
  return sink_->Push(std::move(event));
}

// Rows computed again after a preemption are not counted again. The prompt's belong to every
// output.
void RequestStream::CountRoutes(const SequenceUpdate& update, const StepResult& result) {
  // Without new rows (a preempted prompt being computed again) first_new_row may lie behind the
  // step.
  if (!request_->output.moe_report || update.num_new_rows == 0) return;
  RouteReport& report = update.first_new_position < stats_.num_prompt_tokens
                            ? prompt_routes_
                            : outputs_[update.output_index]->routes();
  for (const RoutePlan& route : result.routes) {
    report += ReportOf(route, update.first_new_row, update.first_new_row + update.num_new_rows);
  }
}

void RequestStream::NoteTokenTime(const OutputStream& output, TimePoint last_token,
                                  StepObserver& observer) {
  if (output.num_tokens() > 1) {
    observer.OnToken(ToSeconds(output.last_token() - last_token));
    return;
  }
  const double seconds = ToSeconds(output.first_token() - submitted_);
  if (stats_.time_to_first_token_seconds < 0) stats_.time_to_first_token_seconds = seconds;
  observer.OnFirstToken(seconds);
}

}  // namespace gatehouse
