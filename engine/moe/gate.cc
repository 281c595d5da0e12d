#include "engine/moe/gate.h"

#include <algorithm>
#include <cmath>

namespace gatehouse {

MatrixView<float> Gate::ComputeLogits(Backend& backend, MatrixView<const float> x,
                                      MatrixView<float> logits) const {
  const MatrixView<float> scores = logits.FirstRows(x.num_rows);
  if (weights_.router == nullptr) {
    backend.BlockMeans({.x = x, .out = scores});
  } else {
    backend.Gemm({.x = x,
                  .weights = weights_.router.get(),
                  .bias = weights_.logit_bias.as<float>(),
                  .out = scores});
  }
  const float* norms = weights_.cosine_norms.as<float>();
  if (norms != nullptr) backend.Cosines({.x = x, .norms = norms, .dots = scores});
  return scores;
}

std::vector<float> Gate::DotsBesideLogits(Backend& backend, MatrixView<const float> x,
                                          MatrixView<float> logits,
                                          const GateRanking& ranking) const {
  std::vector<float> dots;
  const auto asked = std::span(ranking.affinities).first(x.num_rows);
  if (weights_.logit_bias.as<float>() == nullptr ||
      std::find(asked.begin(), asked.end(), Affinity::kCosine) == asked.end()) {
    return dots;
  }
  const MatrixView<float> out = logits.FirstRows(x.num_rows);
  backend.Gemm({.x = x, .weights = weights_.router.get(), .out = out});
  for (int64_t row = 0; row < x.num_rows; ++row) {
    dots.insert(dots.end(), out.row(row), out.row(row) + num_experts());
  }
  return dots;
}

GateChoice Gate::Choose(Backend& backend, MatrixView<const float> x, MatrixView<float> logits,
                        std::span<uint8_t> row_failed) const {
  const int64_t num_pairs = x.num_rows * recipe_.top_k;
  GateChoice choice{.num_rows = static_cast<int>(x.num_rows),
                    .num_experts = num_experts(),
                    .top_k = recipe_.top_k,
                    .expert_ids = std::vector<int32_t>(num_pairs),
                    .weights = std::vector<float>(num_pairs),
                    .mass = std::vector<float>(x.num_rows)};
  backend.GateTopK({.logits = ComputeLogits(backend, x, logits),
                    .recipe = recipe_,
                    .choice_bias = weights_.choice_bias.as<float>(),
                    .expert_ids = {choice.expert_ids.data(), x.num_rows, recipe_.top_k},
                    .weights = {choice.weights.data(), x.num_rows, recipe_.top_k},
                    .mass = choice.mass,
                    .row_failed = row_failed});
  choice.row_failed.assign(row_failed.begin(), row_failed.end());
  return choice;
}

GateScores Gate::Score(Backend& backend, MatrixView<const float> x, MatrixView<float> logits,
                       const GateRanking& ranking, std::span<uint8_t> row_failed) const {
  const int num_rows = static_cast<int>(x.num_rows);
  const int num_ranked = std::clamp(ranking.num_ranked, recipe_.top_k, num_experts());
  const int64_t num_ranks = int64_t{num_rows} * num_ranked;
  GateScores scores{.num_rows = num_rows,
                    .num_experts = num_experts(),
                    .top_k = recipe_.top_k,
                    .num_ranked = num_ranked,
                    .num_chosen = std::vector<int32_t>(num_rows, recipe_.top_k),
                    .ranked_ids = std::vector<int32_t>(num_ranks),
                    .gate = std::vector<float>(num_ranks),
                    .weight = std::vector<float>(num_ranks)};
  const std::vector<float> dots = DotsBesideLogits(backend, x, logits, ranking);
  const MatrixView<float> z = ComputeLogits(backend, x, logits);
  backend.GateTopK({.logits = z,
                    .recipe = recipe_,
                    .choice_bias = weights_.choice_bias.as<float>(),
                    .expert_ids = {scores.ranked_ids.data(), num_rows, num_ranked},
                    .weights = {scores.weight.data(), num_rows, num_ranked},
                    .gate = {scores.gate.data(), num_rows, num_ranked},
                    .row_failed = row_failed});
  scores.row_failed.assign(row_failed.begin(), row_failed.end());
  scores.affinity = scores.gate;
  std::vector<float> norms;  // of the rows, once one of them asks for a cosine
  for (int row = 0; row < num_rows; ++row) {
    if (scores.row_failed[row] != 0) continue;
    if (ranking.affinities[row] == Affinity::kShare) ShareAffinities(scores, row);
    if (ranking.affinities[row] != Affinity::kCosine) continue;
    if (norms.empty()) {
      norms.resize(num_rows);
      backend.RowNorms({.x = x, .out = norms});
    }
    const float* row_dots = dots.empty() ? z.row(row) : dots.data() + int64_t{row} * num_experts();
    CosineAffinities(scores, row, row_dots, norms[row]);
    row_failed[row] = scores.row_failed[row];
  }
  return scores;
}

void Gate::ShareAffinities(GateScores& scores, int row) const {
  const auto affinities = std::span(scores.affinity).subspan(scores.At(row, 0), scores.num_ranked);
  float sum = 0;
  for (int i = 0; i < scores.num_chosen[row]; ++i) sum += affinities[i];
  for (float& a : affinities) a /= sum + 1e-20f;
}

void Gate::CosineAffinities(GateScores& scores, int row, const float* dots, float norm) const {
  const bool dots_are_cosines = weights_.cosine_norms.as<float>() != nullptr;
  for (int i = 0; i < scores.num_ranked; ++i) {
    const int32_t expert = scores.ranked_ids[scores.At(row, i)];
    if (expert < 0) break;
    const double length = dots_are_cosines ? 1 : (double{norm} + 1e-9) * weights_.row_norms[expert];
    const double cosine = length == 0 ? 0 : dots[expert] / length;
    if (!std::isfinite(norm) || !std::isfinite(cosine)) scores.row_failed[row] = 1;
    scores.affinity[scores.At(row, i)] = static_cast<float>(cosine);
  }
}

}  // namespace gatehouse
