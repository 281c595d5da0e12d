// The gate of one MoE layer: hidden rows to the experts each row chooses and their weights, by the
// recipe of the model's family (rules R4 and R6). Owned by its MoeLayer; used by the rank's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.h"

namespace gatehouse {

struct GateOptions {
  GateScore score = GateScore::kSoftmax;
  int num_experts = 0;
  int top_k = 0;
  bool renormalise = false;
  float scale = 1;
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
  Gate(Backend& backend, const GateOptions& options, std::unique_ptr<PackedMatrix> weights)
      : backend_(backend), options_(options), weights_(std::move(weights)) {}

  // x [num_rows, hidden]; logits is workspace [>= num_rows, num_experts]; sets row_failed where it
  // finds a fault.
  GateChoice Choose(MatrixView<const float> x, MatrixView<float> logits,
                    std::span<uint8_t> row_failed) const;

 private:
  Backend& backend_;
  GateOptions options_;
  std::unique_ptr<PackedMatrix> weights_;  // [num_experts, hidden]
};

}  // namespace gatehouse
