#include "engine/moe/gate.h"

namespace gatehouse {

GateChoice Gate::Choose(MatrixView<const float> x, MatrixView<float> logits,
                        std::span<uint8_t> row_failed) const {
  const int64_t num_pairs = x.num_rows * options_.top_k;
  GateChoice choice{.num_rows = static_cast<int>(x.num_rows),
                    .num_experts = options_.num_experts,
                    .top_k = options_.top_k,
                    .expert_ids = std::vector<int32_t>(num_pairs),
                    .weights = std::vector<float>(num_pairs),
                    .row_failed = row_failed};
  const MatrixView<float> scores = logits.FirstRows(x.num_rows);
  backend_.Gemm({.x = x, .weights = weights_.get(), .out = scores});
  backend_.GateTopK({.logits = scores,
                     .score = options_.score,
                     .top_k = options_.top_k,
                     .renormalise = options_.renormalise,
                     .scale = options_.scale,
                     .expert_ids = {choice.expert_ids.data(), x.num_rows, options_.top_k},
                     .weights = {choice.weights.data(), x.num_rows, options_.top_k},
                     .row_failed = row_failed});
  return choice;
}

}  // namespace gatehouse
