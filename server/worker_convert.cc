#include "server/worker_convert.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"
#include "kernels/kv_type.h"

namespace gatehouse {
namespace {

using Ids = google::protobuf::RepeatedField<int32_t>;

template <typename Field, typename Values>
void Assign(Field* field, const Values& values) {
  field->Reserve(static_cast<int>(values.size()));
  for (const auto& value : values) field->AddAlreadyReserved(value);
}

template <typename T>
std::vector<T> Vector(const google::protobuf::RepeatedField<T>& field) {
  return {field.begin(), field.end()};
}

std::span<const int32_t> View(const Ids& ids) {
  return {ids.data(), static_cast<size_t>(ids.size())};
}

absl::Status Wrong(const char* what, int64_t got) {
  return absl::InternalError(absl::StrFormat("a step's %s: got %d", what, got));
}

absl::Status CheckIds(const char* what, std::span<const int32_t> ids, int64_t end) {
  for (const int32_t id : ids) {
    if (id < 0 || id >= end) return Wrong(what, id);
  }
  return absl::OkStatus();
}

v1::RankSampling ToProto(const RowSampling& row) {
  v1::RankSampling message;
  message.set_temperature(row.temperature);
  message.set_top_k(row.top_k);
  message.set_top_p(row.top_p);
  message.set_min_p(row.min_p);
  message.set_typical_p(row.typical_p);
  message.set_uniform(row.uniform);
  Assign(message.mutable_repeated_ids(), row.repeated_ids);
  message.set_repetition_penalty(row.repetition_penalty);
  for (const auto& [id, bias] : row.bias) {
    message.add_bias_ids(id);
    message.add_bias(bias);
  }
  Assign(message.mutable_allowed_ids(), row.allowed_ids);
  message.set_forced_id(row.forced_id);
  message.set_top_logprobs(row.num_top_logprobs);
  Assign(message.mutable_wanted_ids(), row.wanted_ids);
  return message;
}

RowSampling FromProto(const v1::RankSampling& message,
                      std::vector<std::pair<int32_t, float>>& bias) {
  for (int i = 0; i < message.bias_ids_size(); ++i) {
    bias.emplace_back(message.bias_ids(i), message.bias(i));
  }
  return {.temperature = message.temperature(),
          .top_k = message.top_k(),
          .top_p = message.top_p(),
          .min_p = message.min_p(),
          .typical_p = message.typical_p(),
          .uniform = message.uniform(),
          .repeated_ids = View(message.repeated_ids()),
          .repetition_penalty = message.repetition_penalty(),
          .bias = bias,
          .allowed_ids = View(message.allowed_ids()),
          .forced_id = message.forced_id(),
          .num_top_logprobs = message.top_logprobs(),
          .wanted_ids = View(message.wanted_ids())};
}

absl::Status CheckSampling(const v1::RankSampling& message, int32_t vocab_size) {
  if (message.bias_ids_size() != message.bias_size()) {
    return Wrong("number of biases", message.bias_size());
  }
  for (const Ids* ids : {&message.repeated_ids(), &message.bias_ids(), &message.allowed_ids(),
                         &message.wanted_ids()}) {
    GATEHOUSE_RETURN_IF_ERROR(CheckIds("token id", View(*ids), vocab_size));
  }
  if (message.forced_id() >= vocab_size) return Wrong("forced token id", message.forced_id());
  return absl::OkStatus();
}

v1::RankRoutedToken ToProto(const RoutedToken& token) {
  v1::RankRoutedToken message;
  message.set_mode(static_cast<int32_t>(token.mode));
  message.set_padding(token.padding);
  message.set_policy_idx(token.policy_idx);
  message.set_request(token.request);
  message.set_position(token.position);
  message.set_domain(token.domain);
  message.set_home_device(token.home_device);
  message.set_rank(token.rank);
  message.set_tie_key(token.tie_key);
  return message;
}

RoutedToken FromProto(const v1::RankRoutedToken& message) {
  return {.mode = static_cast<TokenMode>(message.mode()),
          .padding = message.padding(),
          .policy_idx = message.policy_idx(),
          .request = message.request(),
          .position = message.position(),
          .domain = message.domain(),
          .home_device = message.home_device(),
          .rank = message.rank(),
          .tie_key = message.tie_key()};
}

// The spans cover the rows in order, and their blocks hold all positions that they speak of.
absl::Status CheckSpans(const v1::RankStep& message, const StepLimits& limits) {
  int64_t row = 0;
  for (const v1::RankSpan& span : message.spans()) {
    if (span.first_row() != row || span.num_rows() < 1) return Wrong("span", span.first_row());
    row += span.num_rows();
    const int64_t end = int64_t{span.first_position()} + span.num_rows();
    if (span.first_position() < 0 || end > limits.max_context) return Wrong("position", end);
    if (int64_t{span.block_ids_size()} * limits.block_tokens < end) {
      return Wrong("number of blocks", span.block_ids_size());
    }
    GATEHOUSE_RETURN_IF_ERROR(CheckIds("block", View(span.block_ids()), limits.num_kv_blocks));
  }
  return row == message.token_ids_size() ? absl::OkStatus() : Wrong("rows of spans", row);
}

absl::Status CheckStep(const v1::RankStep& message, const StepLimits& limits) {
  const int num_rows = message.row_ranks_size(), own_rows = message.token_ids_size();
  if (num_rows > limits.max_rows) return Wrong("number of rows", num_rows);
  GATEHOUSE_RETURN_IF_ERROR(CheckIds("rank", View(message.row_ranks()), limits.num_ranks));
  const auto counted = std::count(message.row_ranks().begin(), message.row_ranks().end(),
                                  static_cast<int32_t>(limits.rank));
  if (counted != own_rows || message.positions_size() != own_rows) {
    return Wrong("number of own rows", own_rows);
  }
  GATEHOUSE_RETURN_IF_ERROR(CheckIds("token id", View(message.token_ids()), limits.vocab_size));
  GATEHOUSE_RETURN_IF_ERROR(CheckIds("position", View(message.positions()), limits.max_context));
  GATEHOUSE_RETURN_IF_ERROR(CheckIds("row of logits", View(message.logit_rows()), own_rows));
  if (message.sampling_size() != message.logit_rows_size()) {
    return Wrong("number of samples", message.sampling_size());
  }
  for (const v1::RankSampling& row : message.sampling()) {
    GATEHOUSE_RETURN_IF_ERROR(CheckSampling(row, limits.vocab_size));
  }
  if (message.tokens_size() != 0 && message.tokens_size() != num_rows) {
    return Wrong("number of routed tokens", message.tokens_size());
  }
  for (const v1::RankRoutedToken& token : message.tokens()) {
    if (token.mode() < 0 || token.mode() >= kNumTokenModes) return Wrong("mode", token.mode());
    if (token.policy_idx() < -1 || token.policy_idx() >= message.policy_ids_size()) {
      return Wrong("policy", token.policy_idx());
    }
  }
  return CheckSpans(message, limits);
}

}  // namespace

v1::RankWelcome ToProto(const RankSettings& settings, int rank) {
  v1::RankWelcome message;
  message.set_rank(rank);
  message.set_ranks(settings.num_ranks);
  message.set_model_hash(settings.model_hash);
  message.set_expert_weights(settings.expert_weight_format);
  message.set_dense_weights(settings.dense_weight_format);
  message.set_kv_type(std::string(KvTypeName(settings.kv_type)));
  message.set_block_tokens(settings.block_tokens);
  message.set_kv_blocks(settings.num_kv_blocks);
  message.set_kv_block_bytes(settings.kv_block_bytes);
  message.set_max_sequences(settings.max_sequences);
  message.set_max_step_tokens(settings.max_step_tokens);
  message.set_max_context(settings.max_context);
  return message;
}

absl::StatusOr<RankSettings> FromProto(const v1::RankWelcome& welcome) {
  RankSettings settings{.num_ranks = welcome.ranks(),
                        .model_hash = welcome.model_hash(),
                        .expert_weight_format = welcome.expert_weights(),
                        .dense_weight_format = welcome.dense_weights(),
                        .block_tokens = welcome.block_tokens(),
                        .kv_block_bytes = welcome.kv_block_bytes(),
                        .num_kv_blocks = welcome.kv_blocks(),
                        .max_sequences = welcome.max_sequences(),
                        .max_step_tokens = welcome.max_step_tokens(),
                        .max_context = welcome.max_context()};
  for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kInt8}) {
    if (welcome.kv_type() != KvTypeName(type)) continue;
    settings.kv_type = type;
    return settings;
  }
  return absl::InternalError("no type of a KV cache: " + welcome.kv_type());
}

v1::RankGroup ToProto(const Membership& membership) {
  v1::RankGroup message;
  message.set_epoch(membership.epoch);
  Assign(message.mutable_members(), membership.members);
  return message;
}

Membership FromProto(const v1::RankGroup& group, int num_ranks) {
  return {.epoch = group.epoch(), .num_ranks = num_ranks, .members = Vector(group.members())};
}

v1::RankKey ToProto(const BoardKey& key) {
  v1::RankKey message;
  message.set_epoch(key.epoch);
  message.set_key(key.key);
  message.set_value(key.value);
  return message;
}

BoardKey FromProto(const v1::RankKey& key) { return {key.epoch(), key.key(), key.value()}; }

v1::RankError ToProto(const absl::Status& status) {
  v1::RankError message;
  message.set_code(static_cast<int32_t>(status.code()));
  message.set_message(std::string(status.message()));
  return message;
}

absl::Status FromProto(const v1::RankError& error) {
  return {static_cast<absl::StatusCode>(error.code()), error.message()};
}

v1::RankStep ToProto(const RankStep& step) {
  v1::RankStep message;
  const RankSlice& slice = *step.slice;
  Assign(message.mutable_row_ranks(), step.rows->row_ranks);
  Assign(message.mutable_token_ids(), slice.token_ids);
  Assign(message.mutable_positions(), slice.positions);
  for (const SequenceSpan& span : slice.spans) {
    v1::RankSpan* const added = message.add_spans();
    added->set_first_row(span.first_row);
    added->set_num_rows(span.num_rows);
    added->set_first_position(span.first_position);
    Assign(added->mutable_block_ids(), span.block_ids);
  }
  Assign(message.mutable_logit_rows(), slice.logit_rows);
  for (const RowSampling& row : step.sampling) *message.add_sampling() = ToProto(row);
  for (const RoutedToken& token : step.routing.tokens) *message.add_tokens() = ToProto(token);
  message.set_observed(step.routing.observer != nullptr);
  message.set_observed_ranks(step.routing.num_observed_ranks);
  return message;
}

absl::Status Read(const v1::RankStep& message, const StepLimits& limits, KnownPolicies& policies,
                  ReceivedStep& step) {
  GATEHOUSE_RETURN_IF_ERROR(CheckStep(message, limits));
  GATEHOUSE_ASSIGN_OR_RETURN(step.policies, policies.Read(message));
  step.rows = RowsByRank(Vector(message.row_ranks()), limits.num_ranks);
  step.slice.token_ids = Vector(message.token_ids());
  step.slice.positions = Vector(message.positions());
  for (const v1::RankSpan& span : message.spans()) {
    step.slice.spans.push_back({.first_row = span.first_row(),
                                .num_rows = span.num_rows(),
                                .first_position = span.first_position(),
                                .block_ids = View(span.block_ids())});
  }
  step.slice.logit_rows = Vector(message.logit_rows());
  step.biases.resize(message.sampling_size());
  for (int i = 0; i < message.sampling_size(); ++i) {
    step.slice.logit_ids.push_back(i);
    step.sampling.push_back(FromProto(message.sampling(i), step.biases[i]));
  }
  for (const v1::RankRoutedToken& token : message.tokens()) step.tokens.push_back(FromProto(token));
  step.observed = message.observed();
  step.num_observed_ranks = message.observed_ranks();
  return absl::OkStatus();
}

v1::RankStepResult ToProto(int64_t step, const absl::StatusOr<RankResult>& result) {
  v1::RankStepResult message;
  message.set_step(step);
  if (!result.ok()) {
    *message.mutable_error() = ToProto(result.status());
    return message;
  }
  message.set_row_failed(std::string(result->row_failed.begin(), result->row_failed.end()));
  for (const RowSample& sample : result->samples) {
    v1::RankSample* const added = message.add_samples();
    added->set_token_id(sample.token_id);
    added->set_logprob(sample.logprob);
    for (const TokenLogprob& top : sample.top) {
      added->add_top_ids(top.id);
      added->add_top_logprobs(top.logprob);
    }
    Assign(added->mutable_wanted(), sample.wanted);
    added->set_failure(static_cast<int32_t>(sample.failure));
  }
  for (const ExchangeCall& call : result->exchanges.calls) {
    v1::RankExchange* const added = message.add_exchanges();
    added->set_phase(static_cast<int32_t>(call.phase));
    added->set_wait_seconds(call.spent.wait_seconds);
    added->set_move_seconds(call.spent.move_seconds);
    added->set_bytes_sent(call.spent.bytes_sent);
    added->set_bytes_received(call.spent.bytes_received);
  }
  message.set_computed(result->exchanges.num_computed);
  return message;
}

absl::StatusOr<RankResult> FromProto(const v1::RankStepResult& message, size_t num_rows,
                                     size_t num_samples) {
  if (message.has_error()) return FromProto(message.error());
  if (message.row_failed().size() != num_rows ||
      static_cast<size_t>(message.samples_size()) != num_samples) {
    return Wrong("result: number of rows", static_cast<int64_t>(message.row_failed().size()));
  }
  RankResult result;
  result.row_failed.assign(message.row_failed().begin(), message.row_failed().end());
  for (const v1::RankSample& sample : message.samples()) {
    const int32_t failure = sample.failure();
    if (sample.top_ids_size() != sample.top_logprobs_size() || failure < 0 ||
        failure > static_cast<int32_t>(SampleFailure::kAllForbidden)) {
      return Wrong("result: a sample's failure", failure);
    }
    RowSample& added = result.samples.emplace_back();
    added.token_id = sample.token_id();
    added.logprob = sample.logprob();
    for (int i = 0; i < sample.top_ids_size(); ++i) {
      added.top.push_back({sample.top_ids(i), sample.top_logprobs(i)});
    }
    added.wanted = Vector(sample.wanted());
    added.failure = static_cast<SampleFailure>(failure);
  }
  for (const v1::RankExchange& call : message.exchanges()) {
    if (call.phase() < 0 || call.phase() >= kNumExchangePhases) {
      return Wrong("result: phase", call.phase());
    }
    result.exchanges.calls.push_back({.phase = static_cast<ExchangePhase>(call.phase()),
                                      .spent = {.wait_seconds = call.wait_seconds(),
                                                .move_seconds = call.move_seconds(),
                                                .bytes_sent = call.bytes_sent(),
                                                .bytes_received = call.bytes_received()}});
  }
  result.exchanges.num_computed = message.computed();
  return result;
}

}  // namespace gatehouse
