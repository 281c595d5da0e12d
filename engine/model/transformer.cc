#include "engine/model/transformer.h"

#include <algorithm>

#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Create(
    Backend& backend, const TransformerShape& shape,
    std::shared_ptr<const TransformerWeights> weights) {
  GATEHOUSE_ASSIGN_OR_RETURN(Buffer memory, backend.Allocate(WorkspaceBytes(shape)));
  return std::unique_ptr<Transformer>(
      new Transformer(backend, shape, std::move(weights), std::move(memory)));
}

Transformer::Transformer(Backend& backend, const TransformerShape& shape,
                         std::shared_ptr<const TransformerWeights> weights, Buffer memory)
    : backend_(backend), shape_(shape), weights_(std::move(weights)), memory_(std::move(memory)) {
  LayOut(shape_, memory_.as<float>(), workspace_);
}

int64_t Transformer::WorkspaceBytes(const TransformerShape& shape) {
  Workspace measured;
  return LayOut(shape, nullptr, measured) * static_cast<int64_t>(sizeof(float));
}

int64_t Transformer::LayOut(const TransformerShape& shape, float* memory, Workspace& workspace) {
  int64_t used = 0;
  const auto take = [&](int64_t num_rows, int64_t num_cols) {
    MatrixView<float> view(memory == nullptr ? nullptr : memory + used, num_rows, num_cols);
    used += (num_rows * num_cols + 15) / 16 * 16;  // whole 64-byte lines
    return view;
  };
  const int64_t rows = shape.max_rows, max_pairs = rows * shape.top_k;
  workspace.residual = take(rows, shape.hidden_size);
  workspace.normed = take(rows, shape.hidden_size);
  workspace.ffn_out = take(rows, shape.hidden_size);
  workspace.logits = take(shape.max_logit_rows, shape.vocab_size);
  workspace.attention.qkv = take(rows, shape.attention.qkv_size());
  workspace.attention.heads = take(rows, shape.attention.q_size());
  const LatentAttentionOptions& latent = shape.latent;
  workspace.latent.q_latent = take(rows, latent.q_rank);
  workspace.latent.q = take(rows, latent.q_size());
  workspace.latent.latent = take(rows, latent.cached_dim());
  workspace.latent.absorbed_q = take(rows, latent.num_heads * latent.cached_dim());
  workspace.latent.sums = take(rows, int64_t{latent.num_heads} * latent.kv_rank);
  workspace.latent.heads = take(rows, int64_t{latent.num_heads} * latent.value_dim);
  workspace.dense_hidden = take(rows, shape.dense_intermediate_size);
  workspace.moe.logits = take(rows, shape.num_experts);
  workspace.moe.hidden = take(max_pairs, shape.expert_intermediate_size);
  workspace.moe.expert_rows = take(max_pairs, shape.hidden_size);
  const int64_t shared_rows = shape.shared_intermediate_size > 0 ? rows : 0;
  workspace.moe.shared_hidden = take(shared_rows, shape.shared_intermediate_size);
  workspace.moe.shared_rows = take(shared_rows, shape.hidden_size);
  workspace.moe.shared_gates = take(shared_rows, 1);
  const int64_t exchanged_rows = shape.num_ranks > 1 ? rows : 0;
  workspace.moe.received_rows = take(exchanged_rows, shape.hidden_size);
  workspace.moe.returned_rows = take(exchanged_rows * shape.top_k, shape.hidden_size);
  return used;
}

absl::StatusOr<std::vector<RoutePlan>> Transformer::Forward(const Step& step,
                                                            Dispatcher& dispatcher) const {
  const auto num_rows = static_cast<int64_t>(step.layout.token_ids.size());
  GATEHOUSE_CHECK(num_rows <= shape_.max_rows) << num_rows << " rows of " << shape_.max_rows;
  const MatrixView<float> residual = workspace_.residual.FirstRows(num_rows);
  const MatrixView<float> normed = workspace_.normed.FirstRows(num_rows);
  const MatrixView<float> ffn_out = workspace_.ffn_out.FirstRows(num_rows);
  const RopeTable rope{.cos_sin = weights_->rope_table.as<float>(),
                       .num_positions = shape_.num_positions,
                       .rotary_dim = shape_.rotary_dim};
  std::vector<RoutePlan> routes;
  backend_.Embed({.table = weights_->embedding, .scale = shape_.embedding_scale, .out = residual});
  for (size_t i = 0; i < weights_->layers.size(); ++i) {
    const DecoderLayer& layer = weights_->layers[i];
    const KvLayerView kv = step.cache.Layer(static_cast<int>(i));
    if (const auto* latent = std::get_if<LatentAttentionLayer>(&layer.attention)) {
      latent->Forward(backend_, rope, kv, workspace_.latent, normed, residual);
    } else {
      std::get<AttentionLayer>(layer.attention)
          .Forward(backend_, rope, kv, workspace_.attention, normed, residual);
    }
    backend_.RmsNorm({.x = residual,
                      .weight = layer.ffn_norm.as<float>(),
                      .eps = shape_.norm_eps,
                      .out = normed});
    if (const auto* moe = std::get_if<MoeLayer>(&layer.ffn)) {
      const MoeLayer::Step moe_step{.routing = step.routing,
                                    .moe_layer_idx = static_cast<int>(routes.size()),
                                    .row_failed = step.row_failed};
      GATEHOUSE_ASSIGN_OR_RETURN(RoutePlan route, moe->Forward(backend_, dispatcher, normed,
                                                               moe_step, workspace_.moe, ffn_out));
      routes.push_back(std::move(route));
    } else {
      std::get<DenseMlp>(layer.ffn).Forward(backend_, normed, workspace_.dense_hidden, ffn_out);
    }
    backend_.Add({.x = ffn_out, .scale = shape_.residual_scale, .out = residual});
  }
  backend_.RmsNorm({.x = residual,
                    .weight = weights_->final_norm.as<float>(),
                    .eps = shape_.norm_eps,
                    .out = normed});
  return routes;
}

MatrixView<const float> Transformer::Logits(std::span<const int32_t> row_ids) const {
  const auto num_rows = static_cast<int64_t>(row_ids.size());
  GATEHOUSE_CHECK(num_rows <= shape_.max_logit_rows)
      << num_rows << " rows of " << shape_.max_logit_rows;
  const MatrixView<float> logits = workspace_.logits.FirstRows(num_rows);
  backend_.Gemm({.x = workspace_.normed,
                 .row_ids = row_ids,
                 .weights = weights_->head.get(),
                 .scale = shape_.logit_scale,
                 .out = logits});
  return logits;
}

}  // namespace gatehouse
