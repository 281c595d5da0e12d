#include "engine/moe/gate.h"

namespace gatehouse {

GateChoice Gate::Choose(MatrixView<const float> x, MatrixView<float> logits,
                        std::span<uint8_t> row_failed) const {
  const int64_t num_pairs = x.num_rows * recipe_.top_k;
  GateChoice choice{.num_rows = static_cast<int>(x.num_rows),
                    .num_experts = static_cast<int>(weights_.router->num_outputs()),
                    .top_k = recipe_.top_k,
                    .expert_ids = std::vector<int32_t>(num_pairs),
                    .weights = std::vector<float>(num_pairs),
                    .row_failed = row_failed};
  const MatrixView<float> scores = logits.FirstRows(x.num_rows);
  backend_.Gemm({.x = x,
                 .weights = weights_.router.get(),
                 .bias = weights_.logit_bias.as<float>(),
                 .out = scores});
  backend_.GateTopK({.logits = scores,
                     .recipe = recipe_,
                     .choice_bias = weights_.choice_bias.as<float>(),
                     .expert_ids = {choice.expert_ids.data(), x.num_rows, recipe_.top_k},
                     .weights = {choice.weights.data(), x.num_rows, recipe_.top_k},
                     .row_failed = row_failed});
  return choice;
}

}  // namespace gatehouse
