#include "server/describe.h"

#include "engine/chat_template/chat_template.h"
#include "server/convert.h"

namespace gatehouse {

v1::ModelInfo ToModelInfo(const ModelDescription& model) {
  v1::ModelInfo info;
  info.set_name(model.name);
  info.set_family(model.family);
  info.set_parameters(model.num_parameters);
  info.set_active_parameters(model.num_active_parameters);
  info.set_layers(model.num_layers);
  info.mutable_moe_layers()->Add(model.moe_layers.begin(), model.moe_layers.end());
  info.set_hidden_size(model.hidden_size);
  info.set_vocab_size(model.vocab_size);
  info.set_experts(model.num_experts);
  info.set_experts_per_token(model.top_k);
  info.set_max_context(model.max_context);
  info.mutable_eos_token_ids()->Add(model.eos_token_ids.begin(), model.eos_token_ids.end());
  info.set_has_chat_template(model.has_chat_template);
  info.set_expert_weight_format(model.expert_weight_format);
  info.set_dense_weight_format(model.dense_weight_format);
  const SamplingParams& from = model.default_sampling;
  v1::Sampling& to = *info.mutable_default_sampling();
  to.set_temperature(from.temperature);
  to.set_top_k(from.top_k);
  to.set_top_p(from.top_p);
  to.set_min_p(from.min_p);
  to.set_typical_p(from.typical_p);
  to.set_frequency_penalty(from.frequency_penalty);
  to.set_presence_penalty(from.presence_penalty);
  to.set_repetition_penalty(from.repetition_penalty);
  to.set_n(1);
  info.set_default_max_new_tokens(model.default_max_new_tokens);
  info.set_hash(model.hash);
  return info;
}

v1::ServerInfo ToServerInfo(const ServerFacts& facts, const ServerConfig& config,
                            const Engine& engine) {
  v1::ServerInfo info;
  info.set_version(facts.version);
  info.set_build(facts.build);
  info.set_backend(facts.backend);
  info.set_isa(facts.isa);
  info.set_ranks(facts.num_ranks);
  info.set_threads(facts.num_threads);
  info.set_kv_type(std::string(KvTypeName(config.engine.cache.kv_type)));
  v1::Limits& limits = *info.mutable_limits();
  const RequestLimits& request = engine.limits();
  limits.set_max_context(request.max_context);
  limits.set_max_outputs(request.max_outputs);
  limits.set_max_top_logprobs(request.max_top_logprobs);
  limits.set_max_stop_strings(request.max_stop_strings);
  limits.set_max_stop_string_bytes(request.max_stop_string_bytes);
  limits.set_max_logit_bias(request.max_logit_bias);
  limits.set_max_bad_words(request.max_bad_words / 2);  // each takes two, see ReadBadWords
  limits.set_max_bad_word_tokens(request.max_bad_word_tokens);
  limits.set_max_stop_token_ids(request.max_stop_token_ids);
  const SchedulerOptions& scheduler = config.engine.scheduler;
  limits.set_max_sequences(MaxRunning(scheduler));
  limits.set_max_step_tokens(scheduler.max_step_tokens);
  limits.set_max_step_ms(scheduler.max_step_ms);
  limits.set_max_queued_requests(scheduler.max_queued_requests);
  limits.set_max_queued_tokens(scheduler.max_queued_tokens);
  const MemoryPlan& plan = engine.memory_plan();
  limits.set_kv_cache_bytes(plan.kv_cache_bytes);
  limits.set_kv_cache_tokens(plan.num_kv_blocks * config.engine.cache.block_tokens);
  limits.set_max_detokenize_ids(kMaxDetokenizeIds);
  limits.set_max_request_id_bytes(kMaxRequestIdBytes);
  limits.set_max_cache_salt_bytes(kMaxCacheSaltBytes);
  limits.set_drain_seconds(config.drain_seconds);
  const ServerLimits& server = config.limits;
  limits.set_max_request_bytes(static_cast<int64_t>(server.max_request_bytes));
  limits.set_max_metadata_bytes(static_cast<int64_t>(server.max_metadata_bytes));
  limits.set_max_connection_bytes(static_cast<int64_t>(server.max_connection_bytes));
  limits.set_max_unread_bytes(static_cast<int64_t>(server.max_unread_bytes));
  limits.set_max_unread_prompt_bytes(static_cast<int64_t>(server.max_unread_prompt_bytes));
  limits.set_max_unread_seconds(server.max_unread_seconds);
  limits.set_max_connection_age_seconds(server.max_connection_age_seconds);
  limits.set_max_streams_per_connection(server.max_streams_per_connection);
  limits.set_max_open_calls(server.max_open_calls);
  limits.set_max_open_bytes(static_cast<int64_t>(server.max_open_bytes));
  limits.set_max_connection_grace_seconds(server.max_connection_grace_seconds);
  limits.set_max_waiting_texts(static_cast<int32_t>(server.max_front_tasks));
  limits.set_max_waiting_text_bytes(static_cast<int64_t>(server.max_front_bytes));
  limits.set_stall_seconds(server.stall_seconds);
  const jinja::RenderLimits chat;
  limits.set_max_chat_steps(chat.max_steps);
  limits.set_max_chat_bytes(static_cast<int64_t>(chat.max_output_bytes));
  limits.set_max_chat_depth(chat.max_depth);
  return info;
}

}  // namespace gatehouse
