// The gate of one MoE layer: hidden rows to the experts each row chooses and their weights, by the
// recipe of the model's family (rules R4 and R6). Owned by its MoeLayer; used by the rank's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.h"

namespace gatehouse {

struct GateWeights {
  std::unique_ptr<PackedMatrix> router;  // [num_experts, hidden]
  Buffer logit_bias;                     // [num_experts] or empty: part of the logit
  Buffer choice_bias;                    // [num_experts] or empty: sways the choice, not the weight
};

// What every row chose, before any bound. A failed row (a logit that is not finite) has row_failed
// set and no choice.
struct GateChoice {
  int num_rows = 0;
  int num_experts = 0;
  int top_k = 0;
  std::vector<int32_t> expert_ids;      // [num_rows, top_k] slot order
  std::vector<float> weights;           // [num_rows, top_k]
  std::span<const uint8_t> row_failed;  // [num_rows]
};

class Gate {
 public:
  Gate(Backend& backend, const GateRecipe& recipe, GateWeights weights)
      : backend_(backend), recipe_(recipe), weights_(std::move(weights)) {}

  // x [num_rows, hidden]; logits is workspace [>= num_rows, num_experts]; sets row_failed where it
  // finds a fault.
  GateChoice Choose(MatrixView<const float> x, MatrixView<float> logits,
                    std::span<uint8_t> row_failed) const;

 private:
  Backend& backend_;
  GateRecipe recipe_;
  GateWeights weights_;
};

}  // namespace gatehouse
