// The decoder: embedding, layers of attention and feed-forward, final norm, output head. The
// weights are immutable and shared by the ranks of a process; each rank has a workspace of its own.
// Holds no state of any sequence. Owned by the rank; used by its thread.
#pragma once

#include <memory>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/cache/kv_cache.h"
#include "engine/model/attention_layer.h"
#include "engine/model/latent_attention.h"
#include "engine/moe/dense_mlp.h"
#include "engine/moe/moe_layer.h"
#include "kernels/backend.h"

namespace gatehouse {

// Everything that sizes one step's workspace, and the factors of the layer loop, known before any
// weight is read.
struct TransformerShape {
  int64_t hidden_size = 0;
  int64_t vocab_size = 0;
  AttentionOptions attention;  // no heads: all layers are latent
  LatentAttentionOptions latent;
  int64_t expert_intermediate_size = 0;
  int64_t dense_intermediate_size = 0;   // 0: no dense layer
  int64_t shared_intermediate_size = 0;  // 0: no shared expert
  int num_experts = 0;
  int top_k = 0;
  float norm_eps = 0;
  float embedding_scale = 1;
  float residual_scale = 1;
  float logit_scale = 1;
  int rotary_dim = 0;
  int64_t num_positions = 0;   // of the rope table
  int64_t max_rows = 0;        // of one step, of all ranks together
  int64_t max_logit_rows = 0;  // of one call to Logits
  int num_ranks = 1;
};

using AnyAttentionLayer = std::variant<AttentionLayer, LatentAttentionLayer>;

struct DecoderLayer {
  AnyAttentionLayer attention;
  Buffer ffn_norm;  // [hidden]
  std::variant<MoeLayer, DenseMlp> ffn;
};

struct TransformerWeights {
  WeightView embedding;                 // [vocab, hidden], read where the checkpoint file is mapped
  std::shared_ptr<const void> mapping;  // keeps that file mapped
  std::vector<DecoderLayer> layers;
  Buffer final_norm;                   // [hidden]
  std::unique_ptr<PackedMatrix> head;  // [vocab, hidden]
  Buffer rope_table;                   // [num_positions, rotary_dim], see RopeTable
};

class Transformer {
 public:
  // RESOURCE_EXHAUSTED when the workspace cannot be had.
  static absl::StatusOr<std::unique_ptr<Transformer>> Create(
      Backend& backend, const TransformerShape& shape,
      std::shared_ptr<const TransformerWeights> weights);
  // Bytes of workspace that Create takes.
  static int64_t WorkspaceBytes(const TransformerShape& shape);

  // What a rank does in one step.
  struct Step {
    const BatchLayout& layout;   // own rows
    const StepRouting& routing;  // of all rows of the step
    const KvCache& cache;
    std::span<uint8_t> row_failed;  // [own rows]: set where a value is not finite
  };
  // Runs all layers on the own rows, at most max_rows, or none, writing their keys and values.
  // Returns the decisions of each MoE layer for all rows of the step. Within a step begun on the
  // back end. What can fail is the dispatcher.
  absl::StatusOr<std::vector<RoutePlan>> Forward(const Step& step, Dispatcher& dispatcher) const;
  // Logits of some rows of the last Forward: [row_ids.size(), vocab], at most max_logit_rows. Valid
  // until the next call.
  MatrixView<const float> Logits(std::span<const int32_t> row_ids) const;

  const TransformerShape& shape() const { return shape_; }

 private:
  struct Workspace {
    MatrixView<float> residual;      // [max_rows, hidden]
    MatrixView<float> normed;        // [max_rows, hidden]
    MatrixView<float> ffn_out;       // [max_rows, hidden]
    MatrixView<float> logits;        // [max_logit_rows, vocab]
    MatrixView<float> dense_hidden;  // [max_rows, dense intermediate]
    AttentionWorkspace attention;
    LatentAttentionWorkspace latent;
    MoeWorkspace moe;
  };

  Transformer(Backend& backend, const TransformerShape& shape,
              std::shared_ptr<const TransformerWeights> weights, Buffer memory);
  // Lays the workspace out from `memory` on and returns the number of floats it takes; null to
  // measure only.
  static int64_t LayOut(const TransformerShape& shape, float* memory, Workspace& workspace);

  Backend& backend_;
  const TransformerShape shape_;
  const std::shared_ptr<const TransformerWeights> weights_;
  const Buffer memory_;
  Workspace workspace_;  // views into memory_
};

}  // namespace gatehouse
