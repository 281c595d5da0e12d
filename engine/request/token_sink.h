// Where a request's output goes. The engine loop pushes; whoever implements it must not block.
//
// Order: one StartedEvent, PromptEvents if asked for, DeltaEvents, one FinishedEvent; then
// Close(OK). With several outputs (SamplingParams::n) each has its own DeltaEvents and then its one
// FinishedEvent, mixed with those of the others; Close follows the last. A request that ends
// otherwise gets Close(status) at any point instead. Close is called exactly once for every
// submitted request, always from the engine loop, and nothing follows it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "engine/moe/route_decision.h"
#include "engine/request/routing_mode.h"
#include "kernels/backend.h"

namespace gatehouse {

// Which experts computed one token: per MoE layer (ascending) top_k ids in slot order and their
// weights; -1 and 0 where a bound dropped the pair.
struct RoutedExperts {
  std::vector<int32_t> expert_ids;  // [num_moe_layers * top_k]
  std::vector<float> weights;       // [num_moe_layers * top_k]
};

struct TokenOutput {
  int32_t id = 0;
  std::string bytes;  // of this token alone; may be part of a character
  std::optional<float> logprob;
  std::vector<TokenLogprob> top;
  // Prompt tokens: of the row that carried the token as input. Generated tokens: of the row whose
  // logits produced it, the one before; so row P-1 of P prompt tokens stands in the prompt event
  // and with the first generated token, every later row once, and the last token's own row never
  // ran.
  std::optional<RoutedExperts> routed_experts;
};

struct StartedEvent {
  int32_t num_prompt_tokens = 0;
  int32_t num_cached_prompt_tokens = 0;
  std::vector<int32_t> prompt_token_ids;  // only if asked for
};

// Sent when prompt_logprobs or routed_experts is asked for: one or more that cover positions 0 ..
// P-1 in order, each position once whatever was preempted. The first token has no logprob.
struct PromptEvent {
  int32_t first_position = 0;
  std::vector<TokenOutput> tokens;
};

// One for each generated token, the stopping one included.
struct DeltaEvent {
  int32_t output_index = 0;  // [0, n)
  std::string
      text;  // valid UTF-8; may be empty while a character or a possible stop string is incomplete
  std::vector<TokenOutput> tokens;
};

enum class FinishReason { kStopEos, kStopToken, kStopString, kLength };

// Sums over the request's tokens and MoE layers (rule R20).
struct MoeReport {
  RoutingMode mode = RoutingMode::kExact;
  int64_t policy_version = 0;  // 0: exact, under none
  RouteReport routes;
};

struct FinishedEvent {
  int32_t output_index = 0;
  FinishReason reason = FinishReason::kLength;
  std::string matched_stop;  // the stop string, or empty
  std::optional<int32_t> matched_stop_token_id;
  int32_t num_prompt_tokens = 0;
  int32_t num_generated_tokens = 0;  // of this output, as all below
  int32_t num_preemptions = 0;
  double queue_seconds = 0;
  double time_to_first_token_seconds = 0;
  double total_seconds = 0;
  std::optional<MoeReport> moe_report;
};

using SinkEvent = std::variant<StartedEvent, PromptEvent, DeltaEvent, FinishedEvent>;

class TokenSink {
 public:
  virtual ~TokenSink() = default;
  // False when the reader is gone or too slow: the engine then ends the request (its Close still
  // comes).
  virtual bool Push(SinkEvent event) = 0;
  virtual void Close(absl::Status status) = 0;
};

}  // namespace gatehouse
