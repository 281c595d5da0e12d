#include "server/convert.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"
#include "server/chat_prompt.h"
#include "server/field_check.h"

namespace gatehouse {
namespace {

constexpr size_t kMaxEchoedNameBytes = 128;  // errors go into the log and into trailers

// Whatever a tokenizer objects to is the text's fault, and the client must know which text.
absl::StatusOr<std::vector<int32_t>> Encode(const std::string& path, const std::string& text,
                                            const EncodeOptions& options, const Engine& engine) {
  absl::StatusOr<std::vector<int32_t>> ids = engine.tokenizer().Encode(text, options);
  if (!ids.ok()) return InvalidField(path, std::string(ids.status().message()));
  return ids;
}

absl::Status ReadInput(const v1::GenerateRequest& message, const Engine& engine, Request& request) {
  switch (message.input_case()) {
    case v1::GenerateRequest::kText: {
      const EncodeOptions options{.add_special_tokens = message.has_add_special_tokens()
                                                            ? message.add_special_tokens()
                                                            : true,
                                  .parse_special = false};
      GATEHOUSE_ASSIGN_OR_RETURN(request.prompt_ids,
                                 Encode("text", message.text(), options, engine));
      if (request.prompt_ids.empty())
        return InvalidField("text", "got no token, expected at least one");
      return absl::OkStatus();
    }
    case v1::GenerateRequest::kTokens:
      if (message.has_add_special_tokens()) {
        return InvalidField("add_special_tokens", "set, expected not to be with tokens");
      }
      request.prompt_ids.assign(message.tokens().ids().begin(), message.tokens().ids().end());
      if (request.prompt_ids.empty()) {
        return InvalidField("tokens.ids", "got no token, expected at least one");
      }
      return absl::OkStatus();
    case v1::GenerateRequest::kChat: {
      GATEHOUSE_ASSIGN_OR_RETURN(
          ChatPrompt prompt,
          EncodeChat(message.chat(), message.add_special_tokens(), false, engine));
      if (prompt.ids.empty()) return InvalidField("chat", "got no token, expected at least one");
      request.prompt_ids = std::move(prompt.ids);
      return absl::OkStatus();
    }
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  return InvalidField("input", "not set, expected one of text, tokens, chat");
}

// Both as written and after a space, since byte-level vocabularies hold " word" and "word" as
// different tokens.
absl::Status ReadBadWords(const v1::Sampling& message, const Engine& engine,
                          SamplingParams& sampling) {
  const int max_words = engine.limits().max_bad_words / 2;
  if (message.bad_words_size() > max_words) {
    return InvalidField("sampling.bad_words", absl::StrFormat("got %d words, the limit is %d",
                                                              message.bad_words_size(), max_words));
  }
  for (int i = 0; i < message.bad_words_size(); ++i) {
    const std::string path = absl::StrFormat("sampling.bad_words[%d]", i);
    const std::string& word = message.bad_words(i);
    if (word.empty()) return InvalidField(path, "got an empty text");
    const EncodeOptions plain{.add_special_tokens = false, .parse_special = false};
    for (const std::string& text : {word, " " + word}) {
      GATEHOUSE_ASSIGN_OR_RETURN(std::vector<int32_t> ids, Encode(path, text, plain, engine));
      if (ids.empty()) return InvalidField(path, "got no token, expected at least one");
      // Here and not in ValidateRequest, which counts both spellings of a word.
      if (ids.size() > static_cast<size_t>(engine.limits().max_bad_word_tokens)) {
        return InvalidField(path, absl::StrFormat("got %u tokens, the limit is %d", ids.size(),
                                                  engine.limits().max_bad_word_tokens));
      }
      sampling.bad_words.push_back(std::move(ids));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadSampling(const v1::Sampling& message, const Engine& engine,
                          SamplingParams& sampling) {
  if (message.has_n()) sampling.n = message.n();
  if (message.has_temperature()) sampling.temperature = message.temperature();
  if (message.has_top_k()) sampling.top_k = message.top_k();
  if (message.has_top_p()) sampling.top_p = message.top_p();
  if (message.has_min_p()) sampling.min_p = message.min_p();
  if (message.has_typical_p()) sampling.typical_p = message.typical_p();
  if (message.has_frequency_penalty()) sampling.frequency_penalty = message.frequency_penalty();
  if (message.has_presence_penalty()) sampling.presence_penalty = message.presence_penalty();
  if (message.has_repetition_penalty()) sampling.repetition_penalty = message.repetition_penalty();
  if (message.has_seed()) sampling.seed = message.seed();
  for (const auto& [id, bias] : message.logit_bias()) sampling.logit_bias.emplace_back(id, bias);
  // The map's order changes from run to run.
  std::sort(sampling.logit_bias.begin(), sampling.logit_bias.end());
  sampling.allowed_token_ids.assign(message.allowed_token_ids().begin(),
                                    message.allowed_token_ids().end());
  return ReadBadWords(message, engine, sampling);
}

absl::Status ReadStop(const v1::Stop& message, StopParams& stop) {
  if (message.has_max_new_tokens()) {
    // The engine takes 0 for "not said".
    if (message.max_new_tokens() < 1) {
      return InvalidField("stop.max_new_tokens",
                          absl::StrFormat("got %d, expected at least 1", message.max_new_tokens()));
    }
    stop.max_new_tokens = message.max_new_tokens();
  }
  stop.min_new_tokens = message.min_new_tokens();
  stop.strings.assign(message.strings().begin(), message.strings().end());
  stop.token_ids.assign(message.token_ids().begin(), message.token_ids().end());
  stop.ignore_eos = message.ignore_eos();
  stop.include_stop = message.include_stop();
  return absl::OkStatus();
}

void ReadOutput(const v1::Output& message, OutputParams& output) {
  if (message.has_top_logprobs()) output.top_logprobs = message.top_logprobs();
  if (message.has_prompt_logprobs()) output.prompt_logprobs = message.prompt_logprobs();
  output.token_ids = message.token_ids();
  output.routed_experts = message.routed_experts();
  output.moe_report = message.moe_report();
}

absl::StatusOr<std::optional<RoutingMode>> ReadMode(const v1::Routing& routing) {
  switch (routing.mode()) {
    case v1::Routing::MODE_UNSPECIFIED:
      return std::optional<RoutingMode>();
    case v1::Routing::EXACT:
      return std::optional(RoutingMode::kExact);
    case v1::Routing::ISOLATED:
      return std::optional(RoutingMode::kIsolated);
    case v1::Routing::SHARED:
      return std::optional(RoutingMode::kShared);
    default:
      return InvalidField("routing.mode",
                          absl::StrFormat("got %d, expected EXACT, ISOLATED or SHARED",
                                          static_cast<int>(routing.mode())));
  }
}

absl::StatusOr<Priority> ReadPriority(v1::GenerateRequest::Priority priority) {
  switch (priority) {
    case v1::GenerateRequest::LOW:
      return Priority::kLow;
    case v1::GenerateRequest::PRIORITY_UNSPECIFIED:
    case v1::GenerateRequest::NORMAL:
      return Priority::kNormal;
    case v1::GenerateRequest::HIGH:
      return Priority::kHigh;
    default:
      return InvalidField("priority", absl::StrFormat("got %d, expected LOW, NORMAL or HIGH",
                                                      static_cast<int>(priority)));
  }
}

void WriteToken(TokenOutput&& token, v1::Token& message) {
  message.set_id(token.id);
  message.set_bytes(std::move(token.bytes));
  if (token.logprob) message.set_logprob(*token.logprob);
  for (const TokenLogprob& top : token.top) {
    v1::TokenLogprob& entry = *message.add_top();
    entry.set_id(top.id);
    entry.set_logprob(top.logprob);
  }
  if (token.routed_experts) {
    v1::RoutedExperts& routed = *message.mutable_routed_experts();
    routed.mutable_expert_ids()->Add(token.routed_experts->expert_ids.begin(),
                                     token.routed_experts->expert_ids.end());
    routed.mutable_weights()->Add(token.routed_experts->weights.begin(),
                                  token.routed_experts->weights.end());
  }
}

v1::Finished::Reason ToReason(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStopEos:
      return v1::Finished::STOP_EOS;
    case FinishReason::kStopToken:
      return v1::Finished::STOP_TOKEN;
    case FinishReason::kStopString:
      return v1::Finished::STOP_STRING;
    case FinishReason::kLength:
      return v1::Finished::LENGTH;
  }
  return v1::Finished::REASON_UNSPECIFIED;
}

void WriteReport(const MoeReport& report, v1::MoeReport& message) {
  const RouteReport& routes = report.routes;
  message.set_mode(ToProto(report.mode));
  message.set_policy_version(report.policy_version);
  message.set_assignments(routes.assignments);
  message.set_kept(routes.kept);
  message.set_rerouted(routes.rerouted);
  message.set_dropped(routes.dropped);
  const bool is_whole = routes.exact() || routes.gate_mass <= 0;
  message.set_gate_mass_kept(is_whole ? 1 : routes.gate_mass_kept / routes.gate_mass);
  message.set_exact(routes.exact());
}

void WriteFinished(FinishedEvent&& event, int32_t num_cached, v1::Finished& message) {
  message.set_output_index(event.output_index);
  message.set_reason(ToReason(event.reason));
  if (event.reason == FinishReason::kStopString) {
    message.set_matched_stop(std::move(event.matched_stop));
  }
  if (event.matched_stop_token_id) message.set_matched_stop_token_id(*event.matched_stop_token_id);
  message.mutable_usage()->set_prompt_tokens(event.num_prompt_tokens);
  message.mutable_usage()->set_cached_prompt_tokens(num_cached);
  message.mutable_usage()->set_generated_tokens(event.num_generated_tokens);
  message.mutable_timings()->set_queue_seconds(event.queue_seconds);
  message.mutable_timings()->set_time_to_first_token_seconds(event.time_to_first_token_seconds);
  message.mutable_timings()->set_total_seconds(event.total_seconds);
  message.mutable_timings()->set_preemptions(event.num_preemptions);
  if (event.moe_report) WriteReport(*event.moe_report, *message.mutable_moe_report());
}

}  // namespace

absl::Status CheckRequestId(const std::string& id) {
  if (id.size() > kMaxRequestIdBytes) {
    return InvalidField("request_id", absl::StrFormat("got %u bytes, the limit is %u", id.size(),
                                                      kMaxRequestIdBytes));
  }
  const bool printable =
      std::all_of(id.begin(), id.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
  return printable ? absl::OkStatus() : InvalidField("request_id", "not printable ASCII");
}

absl::Status CheckModelName(const std::string& name, const ModelDescription& model) {
  if (name.empty() || name == model.name) return absl::OkStatus();
  if (name.size() > kMaxEchoedNameBytes) {
    return absl::NotFoundError(absl::StrFormat(
        "model: got a name of %u bytes, this server serves \"%s\"", name.size(), model.name));
  }
  return absl::NotFoundError(
      absl::StrFormat("model: got \"%s\", this server serves \"%s\"", name, model.name));
}

v1::GenerateRequest::Priority ToProto(Priority priority) {
  switch (priority) {
    case Priority::kLow:
      return v1::GenerateRequest::LOW;
    case Priority::kNormal:
      return v1::GenerateRequest::NORMAL;
    case Priority::kHigh:
      return v1::GenerateRequest::HIGH;
  }
  return v1::GenerateRequest::PRIORITY_UNSPECIFIED;
}

v1::Routing::Mode ToProto(RoutingMode mode) {
  switch (mode) {
    case RoutingMode::kExact:
      return v1::Routing::EXACT;
    case RoutingMode::kIsolated:
      return v1::Routing::ISOLATED;
    case RoutingMode::kShared:
      return v1::Routing::SHARED;
  }
  return v1::Routing::MODE_UNSPECIFIED;
}

absl::StatusOr<Request> ToRequest(const v1::GenerateRequest& message, const TenantPolicy& policy,
                                  const RoutingTable& routing, const Engine& engine) {
  // Cheap checks first: a request that will be refused is not tokenised.
  GATEHOUSE_RETURN_IF_ERROR(CheckModelName(message.model(), engine.model()));
  GATEHOUSE_RETURN_IF_ERROR(CheckRequestId(message.request_id()));
  GATEHOUSE_ASSIGN_OR_RETURN(const std::optional<RoutingMode> wanted, ReadMode(message.routing()));
  GATEHOUSE_ASSIGN_OR_RETURN(const RoutingMode mode, ModeFor(routing, policy, wanted));
  Request request;
  GATEHOUSE_RETURN_IF_ERROR(Pin(routing, mode, request));
  request.id = message.request_id();
  request.has_client_id = !request.id.empty();
  request.tenant = policy.tenant;
  if (message.cache_salt().size() > kMaxCacheSaltBytes) {
    return InvalidField(
        "cache_salt", absl::StrFormat("got %u bytes, the limit is %u", message.cache_salt().size(),
                                      kMaxCacheSaltBytes));
  }
  request.cache_salt = message.cache_salt();
  request.sampling = engine.model().default_sampling;
  GATEHOUSE_ASSIGN_OR_RETURN(request.priority, ReadPriority(message.priority()));
  request.priority = std::min(request.priority, policy.tenant->max_priority);
  GATEHOUSE_RETURN_IF_ERROR(ReadSampling(message.sampling(), engine, request.sampling));
  GATEHOUSE_RETURN_IF_ERROR(ReadStop(message.stop(), request.stop));
  ReadOutput(message.output(), request.output);
  GATEHOUSE_RETURN_IF_ERROR(ReadInput(message, engine, request));
  return request;
}

absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& message,
                                              const Engine& engine) {
  GATEHOUSE_RETURN_IF_ERROR(CheckModelName(message.model(), engine.model()));
  if (message.has_chat()) {
    GATEHOUSE_ASSIGN_OR_RETURN(
        const ChatPrompt prompt,
        EncodeChat(message.chat(), message.add_special_tokens(), message.parse_special(), engine));
    v1::TokenizeResponse response;
    response.mutable_ids()->Add(prompt.ids.begin(), prompt.ids.end());
    response.set_text(prompt.text);
    return response;
  }
  if (!message.has_text()) return InvalidField("input", "not set, expected one of text, chat");
  const EncodeOptions options{
      .add_special_tokens = message.has_add_special_tokens() ? message.add_special_tokens() : true,
      .parse_special = message.parse_special()};
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                             Encode("text", message.text(), options, engine));
  v1::TokenizeResponse response;
  response.mutable_ids()->Add(ids.begin(), ids.end());
  response.set_text(message.text());
  return response;
}

absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& message,
                                                  const Engine& engine) {
  GATEHOUSE_RETURN_IF_ERROR(CheckModelName(message.model(), engine.model()));
  // Some bytes of text for one byte of id: unbounded, the answer would be many times the request.
  if (message.ids_size() > kMaxDetokenizeIds) {
    return InvalidField("ids", absl::StrFormat("got %d tokens, the limit is %d", message.ids_size(),
                                               kMaxDetokenizeIds));
  }
  const std::vector<int32_t> ids(message.ids().begin(), message.ids().end());
  absl::StatusOr<std::string> text = engine.tokenizer().Decode(ids, message.skip_special_tokens());
  if (!text.ok()) return InvalidField("ids", std::string(text.status().message()));
  v1::DetokenizeResponse response;
  response.set_text(*std::move(text));
  return response;
}

void EventConverter::Convert(SinkEvent event, v1::GenerateResponse& response) {
  response.Clear();
  if (auto* delta = std::get_if<DeltaEvent>(&event)) {
    v1::Delta& message = *response.mutable_delta();
    message.set_output_index(delta->output_index);
    message.set_text(std::move(delta->text));
    for (TokenOutput& token : delta->tokens) WriteToken(std::move(token), *message.add_tokens());
  } else if (auto* prompt = std::get_if<PromptEvent>(&event)) {
    v1::PromptChunk& message = *response.mutable_prompt();
    message.set_first_position(prompt->first_position);
    for (TokenOutput& token : prompt->tokens) WriteToken(std::move(token), *message.add_tokens());
  } else if (auto* started = std::get_if<StartedEvent>(&event)) {
    num_cached_prompt_tokens_ = started->num_cached_prompt_tokens;
    v1::Started& message = *response.mutable_started();
    message.set_request_id(request_id_);
    message.set_prompt_tokens(started->num_prompt_tokens);
    message.set_cached_prompt_tokens(started->num_cached_prompt_tokens);
    message.set_priority(ToProto(priority_));
    message.mutable_prompt_token_ids()->Add(started->prompt_token_ids.begin(),
                                            started->prompt_token_ids.end());
  } else {
    WriteFinished(std::get<FinishedEvent>(std::move(event)), num_cached_prompt_tokens_,
                  *response.mutable_finished());
  }
}

TimePoint ToTimePoint(std::chrono::system_clock::time_point deadline, const Clock& clock) {
  const auto now = std::chrono::system_clock::now();
  // "None" is the far end of the clock's range, where a difference would overflow.
  constexpr auto kFarAway = std::chrono::hours(24 * 365);
  if (deadline > now + kFarAway) return kNoDeadline;
  if (deadline < now) return clock.Now();
  return clock.Now() + std::chrono::duration_cast<Duration>(deadline - now);
}

}  // namespace gatehouse
