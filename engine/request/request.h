// One generation request as the engine takes it: immutable once submitted, free of gRPC and of
// tensors.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/moe/pinned_policy.h"
#include "engine/request/routing_mode.h"
#include "engine/request/sampling_params.h"
#include "engine/request/tenant.h"
#include "kernels/base/clock.h"

namespace gatehouse {

struct Request {
  std::string id;  // the client's or the server's, for logs and reports; need not be unique
  std::vector<int32_t> prompt_ids;  // at least one
  SamplingParams sampling;
  StopParams stop;
  OutputParams output;
  Priority priority = Priority::kNormal;
  TimePoint deadline = kNoDeadline;
  std::shared_ptr<const Tenant> tenant;  // null: the default one, Tenant{}
  // Cached prompts are shared only between requests of one tenant and one salt.
  std::string cache_salt;
  // The version of the bounds that it was admitted under, to its end; null: exact.
  RoutingMode mode = RoutingMode::kExact;
  std::shared_ptr<const PinnedPolicy> policy;
  // Bounded routing breaks ties by an id that the client chose. One that the server made tells of
  // other clients' requests, so the prompt takes its place.
  bool has_client_id = false;
  // Filled by ValidateRequest where the repetition penalty looks at them: the prompt's tokens, each
  // once, ascending. Made by who submits: the engine's thread would make them for every output.
  std::vector<int32_t> distinct_prompt_ids;
};

// What a request is validated against.
struct RequestLimits {
  int32_t vocab_size = 0;
  int32_t max_context = 0;   // prompt + generated tokens
  int32_t max_outputs = 32;  // of one request; each takes a place among those that run
  int32_t max_top_logprobs = 20;
  int32_t max_stop_strings = 16;
  int32_t max_stop_string_bytes = 256;
  int32_t max_logit_bias = 1024;
  int32_t max_bad_words = 256;
  int32_t max_bad_word_tokens = 64;  // each generated token looks at so many of the last ones
  int32_t max_stop_token_ids = 256;
  int32_t default_max_new_tokens = 0;  // of a request that does not say; 0: the rest of the context
};

// Checks every number of `request`. INVALID_ARGUMENT "<field path>: got <value>, <limit>": the path
// is the public one (sampling.top_p), ends at the first ':', and becomes google.rpc.BadRequest in
// the server. Fills max_new_tokens 0 and
// distinct_prompt_ids, and puts allowed_token_ids into ascending order, each once.
absl::Status ValidateRequest(const RequestLimits& limits, Request& request);

}  // namespace gatehouse
