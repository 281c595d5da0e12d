// One layer's multi-head latent attention (MLA). The cache keeps one vector a token for all heads:
// the normed latent and the rotated key. What a head would make of the latent is absorbed into its
// query and its output instead (W_uk and W_uv below), for one row as for many: one form, so that
// bits do not depend on how a prompt is cut.
//
//   q = W_q norm(x), by way of a normed q latent if there is one
//   latent, rope key = W_kv norm(x)
//   absorbed q of head h = [W_uk[h]^T q[h], rotated end of q[h]]       scores over the cached rows
//   out = W_o [W_uv[h] (sum of p * latent)]
//
// Owned by the transformer; used by the rank's thread.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "kernels/backend.h"

namespace gatehouse {

struct LatentAttentionOptions {
  int num_heads = 0;
  int q_rank = 0;  // width of the q latent; 0: none
  int kv_rank = 0;
  int nope_dim = 0;  // of a q head; the channels behind these are rotated
  int rope_dim = 0;
  int value_dim = 0;  // of a head
  float norm_eps = 0;
  float latent_norm_eps = 0;  // of the latents' norms
  float scale = 0;

  int64_t q_size() const { return int64_t{num_heads} * (nope_dim + rope_dim); }
  int64_t cached_dim() const { return int64_t{kv_rank} + rope_dim; }
};

struct LatentAttentionWeights {
  Buffer input_norm;                                  // [hidden]
  std::unique_ptr<PackedMatrix> q_down;               // [q_rank, hidden] or null
  Buffer q_down_bias;                                 // [q_rank] or empty
  Buffer q_latent_norm;                               // [q_rank] or empty
  std::unique_ptr<PackedMatrix> q;                    // [q_size, q_rank or hidden]
  std::unique_ptr<PackedMatrix> kv;                   // [cached_dim, hidden]
  Buffer kv_bias;                                     // [cached_dim] or empty
  Buffer latent_norm;                                 // [kv_rank]
  std::vector<std::unique_ptr<PackedMatrix>> absorb;  // [num_heads], W_uk^T [kv_rank, nope_dim]
  std::vector<std::unique_ptr<PackedMatrix>> expand;  // [num_heads], W_uv [value_dim, kv_rank]
  std::unique_ptr<PackedMatrix> output;               // [hidden, num_heads * value_dim]
  Buffer output_bias;                                 // [hidden] or empty
};

struct LatentAttentionWorkspace {
  MatrixView<float> q_latent;    // [max_rows, q_rank]
  MatrixView<float> q;           // [max_rows, q_size]
  MatrixView<float> latent;      // [max_rows, cached_dim]
  MatrixView<float> absorbed_q;  // [max_rows, num_heads * cached_dim]
  MatrixView<float> sums;        // [max_rows, num_heads * kv_rank]
  MatrixView<float> heads;       // [max_rows, num_heads * value_dim]
};

class LatentAttentionLayer {
 public:
  LatentAttentionLayer(const LatentAttentionOptions& options, LatentAttentionWeights weights)
      : options_(options), weights_(std::move(weights)) {}

  // As AttentionLayer::Forward.
  void Forward(Backend& backend, const RopeTable& rope, const KvLayerView& kv,
               const LatentAttentionWorkspace& workspace, MatrixView<float> normed,
               MatrixView<float> residual) const;

 private:
  void ProjectQ(Backend& backend, const LatentAttentionWorkspace& workspace,
                MatrixView<float> normed, MatrixView<float> q) const;

  LatentAttentionOptions options_;
  LatentAttentionWeights weights_;
};

}  // namespace gatehouse
