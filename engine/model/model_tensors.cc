#include "engine/model/model_tensors.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

using Visit = std::function<void(const std::string& name, const TensorShape& shape)>;

// A matrix and its bias.
void VisitLinear(const std::string& prefix, int64_t num_outputs, int64_t num_inputs, bool has_bias,
                 const Visit& visit) {
  visit(WeightName(prefix), {num_outputs, num_inputs});
  if (has_bias) visit(BiasName(prefix), {num_outputs});
}

void VisitLatentAttention(const ModelConfig& config, int32_t layer, const Visit& visit) {
  const TensorNames& names = config.tensor_names;
  const AttentionConfig& attention = config.attention;
  const LatentConfig& latent = attention.latent;
  const int64_t hidden = config.hidden_size, num_heads = attention.num_heads;
  const int64_t q_inputs = latent.q_rank > 0 ? latent.q_rank : hidden;
  visit(LayerTensor(names.attention_norm, layer), {hidden});
  if (latent.q_rank > 0) {
    VisitLinear(LayerTensor(names.q_down, layer), latent.q_rank, hidden, attention.qkv_bias, visit);
    visit(LayerTensor(names.q_latent_norm, layer), {latent.q_rank});
  }
  VisitLinear(LayerTensor(names.q, layer), num_heads * attention.head_dim, q_inputs, false, visit);
  VisitLinear(LayerTensor(names.kv_down, layer), int64_t{latent.kv_rank} + latent.rope_dim, hidden,
              attention.qkv_bias, visit);
  visit(LayerTensor(names.latent_norm, layer), {latent.kv_rank});
  visit(LayerTensor(names.kv_up, layer),
        {num_heads * (latent.nope_dim + latent.value_dim), latent.kv_rank});
  VisitLinear(LayerTensor(names.o, layer), hidden, num_heads * latent.value_dim, attention.o_bias,
              visit);
}

void VisitAttention(const ModelConfig& config, int32_t layer, const Visit& visit) {
  const TensorNames& names = config.tensor_names;
  const AttentionConfig& attention = config.attention;
  const int64_t hidden = config.hidden_size;
  const int64_t q_width = int64_t{attention.num_heads} * attention.head_dim;
  const int64_t kv_width = int64_t{attention.num_kv_heads} * attention.head_dim;
  const auto visit_linear = [&](const std::string& pattern, int64_t num_outputs, int64_t num_inputs,
                                bool has_bias) {
    VisitLinear(LayerTensor(pattern, layer), num_outputs, num_inputs, has_bias, visit);
  };
  visit(LayerTensor(names.attention_norm, layer), {hidden});
  visit_linear(names.q, q_width, hidden, attention.qkv_bias);
  visit_linear(names.k, kv_width, hidden, attention.qkv_bias);
  visit_linear(names.v, kv_width, hidden, attention.qkv_bias);
  visit_linear(names.o, hidden, q_width, attention.o_bias);
  if (attention.qk_norm != QkNorm::kNone) {
    const bool per_head = attention.qk_norm == QkNorm::kPerHead;
    visit(LayerTensor(names.q_norm, layer), {per_head ? attention.head_dim : q_width});
    visit(LayerTensor(names.k_norm, layer), {per_head ? attention.head_dim : kv_width});
  }
  if (!names.sinks.empty()) visit(LayerTensor(names.sinks, layer), {attention.num_heads});
}

void VisitExperts(const ModelConfig& config, int32_t layer, const Visit& visit) {
  const TensorNames& names = config.tensor_names;
  const int64_t hidden = config.hidden_size, experts = config.moe.num_experts;
  const int64_t intermediate = config.moe.intermediate_size;
  switch (names.expert_layout) {
    case ExpertLayout::kSeparate:
      for (int32_t e = 0; e < config.moe.num_experts; ++e) {
        visit(ExpertTensor(names.expert_gate, layer, e), {intermediate, hidden});
        visit(ExpertTensor(names.expert_up, layer, e), {intermediate, hidden});
        visit(ExpertTensor(names.expert_down, layer, e), {hidden, intermediate});
      }
      break;
    case ExpertLayout::kFused:
      visit(LayerTensor(names.expert_gate_up, layer), {experts, 2 * intermediate, hidden});
      visit(LayerTensor(names.expert_down, layer), {experts, hidden, intermediate});
      break;
    case ExpertLayout::kInterleaved:
      visit(LayerTensor(names.expert_gate_up, layer), {experts, hidden, 2 * intermediate});
      visit(LayerTensor(names.expert_down, layer), {experts, intermediate, hidden});
      break;
  }
  if (!names.expert_gate_up_bias.empty()) {
    visit(LayerTensor(names.expert_gate_up_bias, layer), {experts, 2 * intermediate});
    visit(LayerTensor(names.expert_down_bias, layer), {experts, hidden});
  }
}

void VisitFfn(const ModelConfig& config, int32_t layer, const Visit& visit) {
  const TensorNames& names = config.tensor_names;
  const int64_t hidden = config.hidden_size;
  const auto visit_mlp = [&](const std::string& gate, const std::string& up,
                             const std::string& down, int64_t intermediate) {
    visit(LayerTensor(gate, layer), {intermediate, hidden});
    visit(LayerTensor(up, layer), {intermediate, hidden});
    visit(LayerTensor(down, layer), {hidden, intermediate});
  };
  visit(LayerTensor(names.ffn_norm, layer), {hidden});
  if (!config.is_moe_layer[layer]) {
    visit_mlp(names.dense_gate, names.dense_up, names.dense_down, config.dense_intermediate_size);
    return;
  }
  if (!names.router.empty()) {
    visit(LayerTensor(names.router, layer), {config.moe.num_experts, hidden});
  }
  if (!names.router_bias.empty()) {
    visit(LayerTensor(names.router_bias, layer), {config.moe.num_experts});
  }
  if (!names.choice_bias.empty()) {
    visit(LayerTensor(names.choice_bias, layer), {config.moe.num_experts});
  }
  VisitExperts(config, layer, visit);
  if (config.moe.shared_intermediate_size == 0) return;
  visit_mlp(names.shared_gate, names.shared_up, names.shared_down,
            config.moe.shared_intermediate_size);
  if (!names.shared_scale.empty()) visit(LayerTensor(names.shared_scale, layer), {1, hidden});
}

// transformers leaves such a pair untied with a warning; which of the two was meant is a guess.
absl::Status CheckTied(const Checkpoint& checkpoint, const ModelConfig& config) {
  const std::string& name = config.tensor_names.lm_head;
  if (!config.tie_word_embeddings || !checkpoint.Has(name)) return absl::OkStatus();
  const TensorShape table = {config.vocab_size, config.hidden_size};
  GATEHOUSE_ASSIGN_OR_RETURN(const WeightView head, checkpoint.Tensor(name, table));
  GATEHOUSE_ASSIGN_OR_RETURN(const WeightView embedding,
                             checkpoint.Tensor(config.tensor_names.embedding, table));
  const size_t num_bytes = head.num_rows * head.num_cols * DTypeBytes(head.dtype);
  if (head.dtype == embedding.dtype && std::memcmp(head.data, embedding.data, num_bytes) == 0) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrFormat("%s: %s: got values other than %s, expected the same or none with "
                      "tie_word_embeddings true",
                      checkpoint.FileOf(name), name, config.tensor_names.embedding));
}

// A gate that has no rows of its own would pass over stored ones in silence.
absl::Status CheckNoRouter(const Checkpoint& checkpoint, const ModelConfig& config) {
  if (config.tensor_names.refused_router.empty()) return absl::OkStatus();
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string name = LayerTensor(config.tensor_names.refused_router, layer);
    if (!checkpoint.Has(name)) continue;
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: %s: got a tensor, expected none: this gate has no stored rows",
                        checkpoint.FileOf(name), name));
  }
  return absl::OkStatus();
}

}  // namespace

void ForEachTensor(const ModelConfig& config, const Visit& visit) {
  const TensorNames& names = config.tensor_names;
  const TensorShape table = {config.vocab_size, config.hidden_size};
  visit(names.embedding, table);
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    const bool is_latent = config.attention.latent.kv_rank > 0;
    (is_latent ? VisitLatentAttention : VisitAttention)(config, layer, visit);
    VisitFfn(config, layer, visit);
  }
  visit(names.final_norm, {config.hidden_size});
  if (!config.tie_word_embeddings) visit(names.lm_head, table);
}

absl::StatusOr<TensorViews> FindTensors(const Checkpoint& checkpoint, const ModelConfig& config) {
  TensorViews views;
  absl::Status status;
  ForEachTensor(config, [&](const std::string& name, const TensorShape& shape) {
    if (!status.ok()) return;
    const absl::StatusOr<WeightView> view = checkpoint.Tensor(name, shape);
    if (view.ok()) {
      views.emplace(name, *view);
    } else {
      status = view.status();
    }
  });
  GATEHOUSE_RETURN_IF_ERROR(status);
  GATEHOUSE_RETURN_IF_ERROR(CheckTied(checkpoint, config));
  GATEHOUSE_RETURN_IF_ERROR(CheckNoRouter(checkpoint, config));
  return views;
}

std::vector<std::string> UnusedTensors(const Checkpoint& checkpoint, const ModelConfig& config) {
  std::set<std::string> used;
  ForEachTensor(config, [&](const std::string& name, const TensorShape&) { used.insert(name); });
  if (config.tie_word_embeddings) used.insert(config.tensor_names.lm_head);
  std::vector<std::string> unused;
  for (std::string& name : checkpoint.Names()) {
    if (used.count(name) == 0) unused.push_back(std::move(name));
  }
  return unused;
}

}  // namespace gatehouse
