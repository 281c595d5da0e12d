// One layer's attention over the paged cache: norm, one matrix for q, k and v, their norm and
// rotation, cache, scores, output projection into the residual stream. Owned by the transformer;
// used by the rank's thread.
#pragma once

#include <memory>
#include <utility>

#include "kernels/backend.h"

namespace gatehouse {

// What a family chooses; the same for all layers but for the window.
struct AttentionOptions {
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  float norm_eps = 0;
  float scale = 0;                // of q . k, 1 / sqrt(head_dim) unless the family says otherwise
  int32_t window = 0;             // see AttentionArgs
  float clip_qkv = 0;             // see QkvToCacheArgs
  bool norms_full_width = false;  // q_norm and k_norm are of all heads together
  float residual_scale = 1;

  int64_t q_size() const { return int64_t{num_heads} * head_dim; }
  int64_t kv_size() const { return int64_t{num_kv_heads} * head_dim; }
  int64_t qkv_size() const { return q_size() + 2 * kv_size(); }
};

struct AttentionWeights {
  Buffer input_norm;                     // [hidden]
  std::unique_ptr<PackedMatrix> qkv;     // [qkv_size, hidden]: q heads, k heads, v heads
  Buffer qkv_bias;                       // [qkv_size] or empty
  Buffer q_norm;                         // [head_dim], or [q_size] if full width, or empty
  Buffer k_norm;                         // [head_dim], or [kv_size] if full width, or empty
  Buffer sinks;                          // [num_heads] or empty
  std::unique_ptr<PackedMatrix> output;  // [hidden, q_size]
  Buffer output_bias;                    // [hidden] or empty
};

struct AttentionWorkspace {
  MatrixView<float> qkv;    // [max_rows, qkv_size]
  MatrixView<float> heads;  // [max_rows, q_size]
};

class AttentionLayer {
 public:
  AttentionLayer(const AttentionOptions& options, AttentionWeights weights)
      : options_(options), weights_(std::move(weights)) {}

  // residual [num_rows, hidden] += attention(norm(residual)); writes this step's keys and values to
  // `kv`. normed [num_rows, hidden] is workspace.
  void Forward(Backend& backend, const RopeTable& rope, const KvLayerView& kv,
               const AttentionWorkspace& workspace, MatrixView<float> normed,
               MatrixView<float> residual) const;

 private:
  void NormFullWidth(Backend& backend, MatrixView<float> qkv) const;

  AttentionOptions options_;
  AttentionWeights weights_;
};

}  // namespace gatehouse
