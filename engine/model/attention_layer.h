// One layer's attention over the paged cache: norm, one matrix for q, k and v, per-head norm and
// rotation, cache, scores, output projection into the residual stream. Owned by the transformer;
// used by the rank's thread.
#pragma once

#include <memory>
#include <utility>

#include "kernels/backend.h"

namespace gatehouse {

// What a family chooses; the same for all layers.
struct AttentionOptions {
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  float norm_eps = 0;
  float scale = 0;  // of q . k, 1 / sqrt(head_dim) unless the family says otherwise

  int64_t q_size() const { return int64_t{num_heads} * head_dim; }
  int64_t qkv_size() const { return (num_heads + int64_t{2} * num_kv_heads) * head_dim; }
};

struct AttentionWeights {
  Buffer input_norm;                     // [hidden]
  std::unique_ptr<PackedMatrix> qkv;     // [qkv_size, hidden]: q heads, k heads, v heads
  Buffer qkv_bias;                       // [qkv_size] or empty
  Buffer q_norm;                         // [head_dim] or empty
  Buffer k_norm;                         // [head_dim] or empty
  std::unique_ptr<PackedMatrix> output;  // [hidden, q_size]
  Buffer output_bias;                    // [hidden] or empty
};

struct AttentionWorkspace {
  MatrixView<float> qkv;    // [max_rows, qkv_size]
  MatrixView<float> heads;  // [max_rows, q_size]
};

class AttentionLayer {
 public:
  AttentionLayer(Backend& backend, const AttentionOptions& options, AttentionWeights weights)
      : backend_(backend), options_(options), weights_(std::move(weights)) {}

  // residual [num_rows, hidden] += attention(norm(residual)); writes this step's keys and values to
  // `kv`. normed [num_rows, hidden] is workspace.
  void Forward(const RopeTable& rope, const KvLayerView& kv, const AttentionWorkspace& workspace,
               MatrixView<float> normed, MatrixView<float> residual) const;

 private:
  Backend& backend_;
  AttentionOptions options_;
  AttentionWeights weights_;
};

}  // namespace gatehouse
