// What the configurations of all families have in common, so that a family's file says only what is
// its own. Each reader takes the family's defaults (those of its configuration class in
// transformers), fills its part of the config and leaves errors in the fields.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/json/json_fields.h"
#include "engine/model/model_config.h"

namespace gatehouse {

// Sizes, norm, end tokens, ties, and keys whose other values no family serves. First: the readers
// below need the sizes.
struct SizeDefaults {
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t num_layers = 0;
  double norm_eps = 1e-6;
  std::optional<int32_t> eos_token_id;  // where the key is absent
};
void ReadSizes(JsonFields& fields, const SizeDefaults& defaults, ModelConfig& config);

// Heads, their width and scale, rope and the context; no layer has a window.
struct HeadDefaults {
  int32_t num_heads = 0;
  std::optional<int32_t> num_kv_heads;  // absent: num_heads
  std::optional<int32_t> head_dim;      // absent: hidden_size / num_heads
  int32_t max_positions = 0;
  double rope_theta = 10000;
  RopeConfig rope_unless_given;
};
void ReadHeads(JsonFields& fields, const HeadDefaults& defaults, ModelConfig& config);

// How many experts, how many of them a row chooses, and how wide they are.
struct ExpertDefaults {
  int32_t num_experts = 0;
  int32_t least_experts = 1;
  int32_t top_k = 0;
  const char* intermediate_key = "intermediate_size";
  int32_t intermediate_size = 0;
};
// Of two names for the number of experts the one that stands. In some families transformers takes
// both and lets one win, in others it reads one alone; so two that differ are refused.
const char* ExpertCountKey(JsonFields& fields, const char* key, const char* alias);
void ReadExperts(JsonFields& fields, const ExpertDefaults& defaults, ModelConfig& config);

// Qwen's rule: every decoder_sparse_step-th layer has experts, but those of mlp_only_layers.
std::vector<bool> ReadSparseSteps(JsonFields& fields, const ModelConfig& config);

// layer_types: which layers are sliding_attention; absent: `unless_given`. All others are
// full_attention.
std::vector<bool> ReadSlidingLayers(JsonFields& fields, int32_t num_layers,
                                    std::vector<bool> unless_given);
// The window of `key` on those layers. Refused where one slides and there is no window.
void SetWindows(JsonFields& fields, std::optional<int32_t> fallback,
                const std::vector<bool>& slides, ModelConfig& config);
// For a family without windows: refuses sliding_window and layer_types that ask for one.
void RefuseWindows(JsonFields& fields, const ModelConfig& config);

// model.embed_tokens, model.layers.{l}.self_attn.q_proj and so on: what most families share.
TensorNames CommonNames();
// gate_proj, up_proj and down_proj of each expert and the router as mlp.gate.
void NameSeparateExperts(TensorNames& names);

}  // namespace gatehouse
