// The gate of one MoE layer: hidden rows to the experts each row chooses and their weights, by the
// recipe of the model's family (rules R4 to R6). Owned by its MoeLayer; used by the rank's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/moe/gate_scores.h"
#include "engine/moe/routing_policy.h"
#include "kernels/backend.h"

namespace gatehouse {

struct GateWeights {
  std::unique_ptr<PackedMatrix> router;  // [num_experts, hidden]; null: means of blocks (GrAP)
  std::vector<float> row_norms;          // [num_experts] |w|
  Buffer cosine_norms;                   // the same or empty; given: logits are cosines
  Buffer logit_bias;                     // [num_experts] or empty: part of the logit
  Buffer choice_bias;                    // [num_experts] or empty: sways the choice, not the weight
};

// What every row chose, before any bound. A failed row (a logit that is not finite) has row_failed
// set and no choice.
struct GateChoice {
  int num_rows = 0;
  int num_experts = 0;
  int top_k = 0;
  std::vector<int32_t> expert_ids;  // [num_rows, top_k] slot order
  std::vector<float> weights;       // [num_rows, top_k]
  std::vector<float> mass;          // [num_rows] the sum of the chosen P
  std::vector<uint8_t> row_failed;  // [num_rows]
};

// What bounded routing asks of the gate beyond the choice.
struct GateRanking {
  int num_ranked = 0;                    // of every row; clamped to [top_k, num_experts]
  std::span<const Affinity> affinities;  // [num_rows]
};

class Gate {
 public:
  Gate(const GateRecipe& recipe, GateWeights weights)
      : recipe_(recipe), weights_(std::move(weights)) {}

  // x [num_rows, hidden]; logits is workspace [>= num_rows, num_experts]; sets row_failed where it
  // finds a fault.
  GateChoice Choose(Backend& backend, MatrixView<const float> x, MatrixView<float> logits,
                    std::span<uint8_t> row_failed) const;
  // Likewise, with the ranks behind the chosen ones: of the chosen, expert ids and weights have the
  // bits that Choose gives them. Rows that failed before stay failed.
  GateScores Score(Backend& backend, MatrixView<const float> x, MatrixView<float> logits,
                   const GateRanking& ranking, std::span<uint8_t> row_failed) const;

  int top_k() const { return recipe_.top_k; }
  int num_experts() const { return static_cast<int>(weights_.row_norms.size()); }

 private:
  MatrixView<float> ComputeLogits(Backend& backend, MatrixView<const float> x,
                                  MatrixView<float> logits) const;
  // [num_rows, num_experts] x.w, in `logits` as well, if they differ from the logits by a bias and
  // a row asks for a cosine; else empty.
  std::vector<float> DotsBesideLogits(Backend& backend, MatrixView<const float> x,
                                      MatrixView<float> logits, const GateRanking& ranking) const;
  void ShareAffinities(GateScores& scores, int row) const;
  // `dots` are without bias: taking it off a logit again would lose the digits that it hid.
  void CosineAffinities(GateScores& scores, int row, const float* dots, float norm) const;

  GateRecipe recipe_;
  GateWeights weights_;
};

}  // namespace gatehouse
