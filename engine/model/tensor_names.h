// What a family calls its tensors. {l} stands for the layer, {e} for the expert; a name without
// ".weight" is a prefix to which ".weight" and ".bias" are added. A tensor that a family lacks has
// an empty name.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace gatehouse {

// How a file holds the experts of a layer.
enum class ExpertLayout {
  kSeparate,     // expert_gate, expert_up and expert_down of each expert
  kFused,        // expert_gate_up [experts, 2 intermediate, hidden], the gate half first;
                 // expert_down [experts, hidden, intermediate]
  kInterleaved,  // expert_gate_up [experts, hidden, 2 intermediate], gate in the even columns;
                 // expert_down [experts, intermediate, hidden]
};

struct TensorNames {
  std::string embedding;   // [vocab, hidden]
  std::string final_norm;  // [hidden]
  std::string lm_head;     // [vocab, hidden], absent when tied

  std::string attention_norm;  // [hidden], before attention
  std::string q, k, v, o;      // prefixes; q [num_heads * head_dim, hidden]
  std::string q_norm, k_norm;  // [head_dim], or the width of q and of k (QkNorm)
  std::string sinks;           // [num_heads]
  // Of latent attention, with q and o above; q_down and kv_down are prefixes. Without a q latent
  // q_down is empty and q is [num_heads * head_dim, hidden], else it is as wide as that latent.
  std::string q_down, q_latent_norm;  // [q_rank, hidden], [q_rank]
  std::string kv_down, latent_norm;   // [kv_rank + rope_dim, hidden], [kv_rank]
  std::string kv_up;                  // [num_heads * (nope_dim + value_dim), kv_rank]
  std::string ffn_norm;               // [hidden], before the MLP or the experts

  std::string dense_gate, dense_up, dense_down;  // gate, up [intermediate, hidden]
  std::string router;                            // [num_experts, hidden]
  std::string refused_router;                    // a file that holds it is refused
  std::string router_bias;                       // [num_experts], part of the logit
  std::string choice_bias;                       // [num_experts], sways the choice alone

  ExpertLayout expert_layout = ExpertLayout::kSeparate;
  std::string expert_gate, expert_up;  // [intermediate, hidden]
  std::string expert_gate_up;          // see the layout
  std::string expert_down;             // [hidden, intermediate], or see the layout
  std::string expert_gate_up_bias;     // [experts, 2 intermediate], interleaved
  std::string expert_down_bias;        // [experts, hidden]

  std::string shared_gate, shared_up, shared_down;  // of the shared expert, like a dense MLP's
  std::string shared_scale;                         // [1, hidden]: its weight is the sigmoid
};

inline std::string LayerTensor(const std::string& pattern, int32_t layer_idx) {
  return absl::StrReplaceAll(pattern, {{"{l}", absl::StrCat(layer_idx)}});
}
inline std::string ExpertTensor(const std::string& pattern, int32_t layer_idx, int32_t expert_id) {
  return absl::StrReplaceAll(pattern,
                             {{"{l}", absl::StrCat(layer_idx)}, {"{e}", absl::StrCat(expert_id)}});
}
inline std::string WeightName(const std::string& prefix) { return prefix + ".weight"; }
inline std::string BiasName(const std::string& prefix) { return prefix + ".bias"; }

}  // namespace gatehouse
