#include "engine/model/attention_layer.h"

namespace gatehouse {

void AttentionLayer::NormFullWidth(Backend& backend, MatrixView<float> qkv) const {
  const MatrixView<float> q = qkv.Cols(0, options_.q_size());
  const MatrixView<float> k = qkv.Cols(options_.q_size(), options_.kv_size());
  backend.RmsNorm(
      {.x = q, .weight = weights_.q_norm.as<float>(), .eps = options_.norm_eps, .out = q});
  backend.RmsNorm(
      {.x = k, .weight = weights_.k_norm.as<float>(), .eps = options_.norm_eps, .out = k});
}

void AttentionLayer::Forward(Backend& backend, const RopeTable& rope, const KvLayerView& kv,
                             const AttentionWorkspace& workspace, MatrixView<float> normed,
                             MatrixView<float> residual) const {
  const MatrixView<float> qkv = workspace.qkv.FirstRows(residual.num_rows);
  const MatrixView<float> heads = workspace.heads.FirstRows(residual.num_rows);
  backend.RmsNorm({.x = residual,
                   .weight = weights_.input_norm.as<float>(),
                   .eps = options_.norm_eps,
                   .out = normed});
  backend.Gemm({.x = normed,
                .weights = weights_.qkv.get(),
                .bias = weights_.qkv_bias.as<float>(),
                .out = qkv});
  if (options_.norms_full_width) NormFullWidth(backend, qkv);
  const bool per_head = !options_.norms_full_width;
  backend.QkvToCache({.qkv = qkv,
                      .num_heads = options_.num_heads,
                      .clip = options_.clip_qkv,
                      .q_norm = per_head ? weights_.q_norm.as<float>() : nullptr,
                      .k_norm = per_head ? weights_.k_norm.as<float>() : nullptr,
                      .norm_eps = options_.norm_eps,
                      .rope = rope,
                      .kv = kv});
  backend.Attention({.q = qkv.Cols(0, options_.q_size()),
                     .num_heads = options_.num_heads,
                     .scale = options_.scale,
                     .window = options_.window,
                     .sinks = weights_.sinks.as<float>(),
                     .kv = kv,
                     .out = heads});
  backend.Gemm({.x = heads,
                .weights = weights_.output.get(),
                .bias = weights_.output_bias.as<float>(),
                .scale = options_.residual_scale,
                .accumulate = true,
                .out = residual});
}

}  // namespace gatehouse
