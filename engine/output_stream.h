// One output of a request on its way out: what its sampling depends on, its text so far, and the
// events of its tokens. A request with n > 1 has several, which share nothing but the prompt.
//
// Owned by the RequestStream; the engine loop's thread.
//
//   RowSampling how = output.NextSampling();          // valid until Append
//   DeltaEvent delta = output.Append(sample, ...);
//   if (output.finish_reason()) FinishedEvent end = output.Finished();
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "engine/bounded_run.h"
#include "engine/request/request.h"
#include "engine/request/token_sink.h"
#include "engine/sampling/sampling_state.h"
#include "engine/stop_matcher.h"
#include "engine/tokenizer/incremental_decoder.h"
#include "kernels/base/clock.h"

namespace gatehouse {

// A token and what it tells, from the row that chose it.
TokenOutput TokenOutputOf(const Tokenizer& tokenizer, int32_t token_id, const RowSample* logprobs);

struct OutputStreamSetup {
  std::shared_ptr<const Request> request;
  const Tokenizer* tokenizer = nullptr;  // outlives the stream
  std::span<const int32_t> eos_token_ids;
  uint64_t seed = 0;  // the request's
  int32_t output_index = 0;
  BoundedRun* run = nullptr;  // outlives the stream; null: nothing is kept
};

class OutputStream {
 public:
  explicit OutputStream(const OutputStreamSetup& setup);

  RowSampling NextSampling();
  // The next token at `now`; `reason` when the scheduler says it is the last.
  DeltaEvent Append(const RowSample& sample, std::optional<FinishReason> reason, TimePoint now);
  // Set by the last token, which a stop string may make of any.
  const std::optional<FinishReason>& finish_reason() const { return finish_reason_; }
  // What is the output's own; the rest is the request's.
  FinishedEvent Finished() const;

  int32_t num_tokens() const { return num_tokens_; }
  TimePoint first_token() const { return first_token_; }  // with num_tokens() > 0
  TimePoint last_token() const { return last_token_; }
  RouteReport& routes() { return routes_; }  // of the rows of its own tokens

 private:
  std::string TextOf(int32_t token_id, std::optional<FinishReason> reason);
  std::string TextWithStopToken(int32_t token_id);

  const std::shared_ptr<const Request> request_;
  const Tokenizer* const tokenizer_;
  const int32_t output_index_;
  BoundedRun* const run_;
  SamplingState sampling_;
  IncrementalDecoder decoder_;
  StopMatcher stop_matcher_;
  int32_t num_tokens_ = 0;
  TimePoint first_token_{};
  TimePoint last_token_{};
  std::optional<FinishReason> finish_reason_;
  std::optional<int32_t> matched_stop_token_id_;
  RouteReport routes_;
};

}  // namespace gatehouse
