#include "engine/model/attention_layer.h"

namespace gatehouse {

void AttentionLayer::Forward(const RopeTable& rope, const KvLayerView& kv,
                             const AttentionWorkspace& workspace, MatrixView<float> normed,
                             MatrixView<float> residual) const {
  const MatrixView<float> qkv = workspace.qkv.FirstRows(residual.num_rows);
  const MatrixView<float> heads = workspace.heads.FirstRows(residual.num_rows);
  backend_.RmsNorm({.x = residual,
                    .weight = weights_.input_norm.as<float>(),
                    .eps = options_.norm_eps,
                    .out = normed});
  backend_.Gemm({.x = normed,
                 .weights = weights_.qkv.get(),
                 .bias = weights_.qkv_bias.as<float>(),
                 .out = qkv});
  backend_.QkvToCache({.qkv = qkv,
                       .num_heads = options_.num_heads,
                       .q_norm = weights_.q_norm.as<float>(),
                       .k_norm = weights_.k_norm.as<float>(),
                       .norm_eps = options_.norm_eps,
                       .rope = rope,
                       .kv = kv});
  backend_.Attention({.q = qkv.Cols(0, options_.q_size()),
                      .num_heads = options_.num_heads,
                      .scale = options_.scale,
                      .kv = kv,
                      .out = heads});
  backend_.Gemm({.x = heads,
                 .weights = weights_.output.get(),
                 .bias = weights_.output_bias.as<float>(),
                 .accumulate = true,
                 .out = residual});
}

}  // namespace gatehouse
