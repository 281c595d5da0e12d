// One request on its way out: turns what the steps yield into events of its TokenSink, with one
// OutputStream for each of its outputs, and closes the sink exactly once.
//
// Owned by the engine loop, whose thread alone calls it. The scheduler's Sequences are the same
// request on the other side: this class knows no blocks, those no text.
//
//   std::optional<absl::Status> end = stream.Deliver(update, step, observer);
//   if (end.has_value()) { scheduler.Remove(id); stream.Close(*end, now, observer); }
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/output_stream.h"
#include "engine/request/request.h"
#include "engine/request/token_sink.h"
#include "engine/sampling/sampling_state.h"
#include "engine/scheduler/scheduler.h"
#include "engine/step_stats.h"
#include "engine/worker.h"

namespace gatehouse {

// A step that has run. `result` is not read for updates that carry an error.
struct FinishedStep {
  const StepPlan* plan = nullptr;
  const StepResult* result = nullptr;
  TimePoint begin{};
  TimePoint end{};
};

struct RequestStreamSetup {
  std::shared_ptr<const Request> request;
  std::shared_ptr<TokenSink> sink;
  const Tokenizer* tokenizer = nullptr;  // outlives the stream
  std::span<const int32_t> eos_token_ids;
  uint64_t seed = 0;  // for a request without its own
  TimePoint submitted{};
  BoundedRun* run = nullptr;  // of its first output; outlives the stream
};

class RequestStream {
 public:
  explicit RequestStream(const RequestStreamSetup& setup);
  ~RequestStream();  // aborts if Close was forgotten
  RequestStream(const RequestStream&) = delete;
  RequestStream& operator=(const RequestStream&) = delete;

  // How the logits of one of its rows are to be used. The spans stay valid until Deliver.
  RowSampling SamplingFor(const LogitRow& row);

  // Pushes the events of one step. The status to close with when the request has ended, by its own
  // rules, an error, or a reader that is gone (CANCELLED).
  std::optional<absl::Status> Deliver(const SequenceUpdate& update, const FinishedStep& step,
                                      StepObserver& observer);
  // A stop string ends an output that the scheduler would go on with.
  bool HasFinished(int32_t output_index) const {
    return outputs_[output_index]->finish_reason().has_value();
  }

  std::string tenant_name() const {
    return request_->tenant == nullptr ? Tenant{}.name : request_->tenant->name;
  }

  // Tells the observer first: who has seen the end finds it counted.
  void Close(absl::Status status, TimePoint now, StepObserver& observer);

 private:
  bool PushStarted(const SequenceUpdate& update, const FinishedStep& step);
  bool PushPrompt(const SequenceUpdate& update, const FinishedStep& step);
  bool PushToken(const SequenceUpdate& update, const FinishedStep& step, StepObserver& observer);
  bool PushFinished(const SequenceUpdate& update, const FinishedStep& step);

  void CountRoutes(const SequenceUpdate& update, const StepResult& result);
  void NoteTokenTime(const OutputStream& output, TimePoint last_token, StepObserver& observer);

  const std::shared_ptr<const Request> request_;
  const std::shared_ptr<TokenSink> sink_;
  const Tokenizer* const tokenizer_;
  const TimePoint submitted_;

  std::vector<std::unique_ptr<OutputStream>> outputs_;  // [n]
  int32_t num_finished_ = 0;
  // The log-probabilities of the next prompt position to report: they come from the row before it,
  // which may stand in an earlier step.
  std::optional<RowSample> next_prompt_logprobs_;
  RouteReport prompt_routes_;
  RequestStats stats_;
  bool started_ = false;
  bool closed_ = false;
};

}  // namespace gatehouse
