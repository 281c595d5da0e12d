#include "engine/model/latent_attention.h"

namespace gatehouse {

void LatentAttentionLayer::ProjectQ(Backend& backend, const LatentAttentionWorkspace& workspace,
                                    MatrixView<float> normed, MatrixView<float> q) const {
  if (weights_.q_down == nullptr) {
    backend.Gemm({.x = normed, .weights = weights_.q.get(), .out = q});
    return;
  }
  const MatrixView<float> q_latent = workspace.q_latent.FirstRows(normed.num_rows);
  backend.Gemm({.x = normed,
                .weights = weights_.q_down.get(),
                .bias = weights_.q_down_bias.as<float>(),
                .out = q_latent});
  backend.RmsNorm({.x = q_latent,
                   .weight = weights_.q_latent_norm.as<float>(),
                   .eps = options_.latent_norm_eps,
                   .out = q_latent});
  backend.Gemm({.x = q_latent, .weights = weights_.q.get(), .out = q});
}

void LatentAttentionLayer::Forward(Backend& backend, const RopeTable& rope, const KvLayerView& kv,
                                   const LatentAttentionWorkspace& workspace,
                                   MatrixView<float> normed, MatrixView<float> residual) const {
  const int64_t num_rows = residual.num_rows;
  const MatrixView<float> q = workspace.q.FirstRows(num_rows);
  const MatrixView<float> latent = workspace.latent.FirstRows(num_rows);
  const MatrixView<float> absorbed_q = workspace.absorbed_q.FirstRows(num_rows);
  const MatrixView<float> sums = workspace.sums.FirstRows(num_rows);
  const MatrixView<float> heads = workspace.heads.FirstRows(num_rows);
  backend.RmsNorm({.x = residual,
                   .weight = weights_.input_norm.as<float>(),
                   .eps = options_.norm_eps,
                   .out = normed});
  ProjectQ(backend, workspace, normed, q);
  backend.Gemm({.x = normed,
                .weights = weights_.kv.get(),
                .bias = weights_.kv_bias.as<float>(),
                .out = latent});
  backend.HeadGemm({.x = q, .weights = weights_.absorb, .out = absorbed_q});
  backend.LatentToCache({.latent = latent,
                         .norm = weights_.latent_norm.as<float>(),
                         .norm_eps = options_.latent_norm_eps,
                         .num_heads = options_.num_heads,
                         .q = q,
                         .absorbed_q = absorbed_q,
                         .rope = rope,
                         .kv = kv});
  backend.Attention({.q = absorbed_q,
                     .num_heads = options_.num_heads,
                     .scale = options_.scale,
                     .kv = kv,
                     .out = sums});
  backend.HeadGemm({.x = sums, .weights = weights_.expand, .out = heads});
  backend.Gemm({.x = heads,
                .weights = weights_.output.get(),
                .bias = weights_.output_bias.as<float>(),
                .accumulate = true,
                .out = residual});
}

}  // namespace gatehouse
