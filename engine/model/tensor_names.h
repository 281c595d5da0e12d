// What a family calls its tensors. {l} stands for the layer, {e} for the expert; a name without
// ".weight" is a prefix to which ".weight" and ".bias" are added.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace gatehouse {

struct TensorNames {
  std::string embedding;   // [vocab, hidden]
  std::string final_norm;  // [hidden]
  std::string lm_head;     // [vocab, hidden], absent when tied

  std::string attention_norm;  // [hidden], before attention
  std::string q, k, v, o;      // prefixes; q [num_heads * head_dim, hidden]
  std::string q_norm, k_norm;  // [head_dim]
  std::string ffn_norm;        // [hidden], before the MLP or the experts

  std::string dense_gate, dense_up, dense_down;     // gate, up [intermediate, hidden]
  std::string router;                               // [num_experts, hidden]
  std::string expert_gate, expert_up, expert_down;  // down [hidden, intermediate]
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
