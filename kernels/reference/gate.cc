#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/op_checks.h"
#include "kernels/reference/reference_backend.h"

namespace gatehouse {
namespace {

// e^z over the sum of e^z of `among`, for every z.
std::vector<double> SoftmaxAmong(std::span<const double> logits, std::span<const int32_t> among) {
  double largest = -INFINITY, total = 0;
  for (const int32_t e : among) largest = std::max(largest, logits[e]);
  for (const int32_t e : among) total += std::exp(logits[e] - largest);
  std::vector<double> p;
  for (const double z : logits) p.push_back(std::exp(z - largest) / total);
  return p;
}

// Ids by value descending, ties to the lower id.
std::vector<int32_t> Rank(std::span<const float> values) {
  std::vector<int32_t> ids(values.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return values[a] > values[b]; });
  return ids;
}

// Rule R6: closed groups have no rank.
std::vector<int32_t> RankOpen(const GateRecipe& recipe, std::span<const float> selection) {
  const size_t size = selection.size() / recipe.num_groups;
  std::vector<float> scores;
  for (int g = 0; g < recipe.num_groups; ++g) {
    const std::span<const float> group = selection.subspan(g * size, size);
    const std::vector<int32_t> best = Rank(group);
    scores.push_back(group[best[0]]);
    if (recipe.group_score == GroupScore::kSumOfTwoLargest) scores.back() += group[best[1]];
  }
  std::vector<int32_t> open = Rank(scores), ranking = Rank(selection);
  open.resize(recipe.num_open_groups);
  std::erase_if(ranking, [&](int32_t e) {
    const auto group = static_cast<int32_t>(e / size);
    return std::find(open.begin(), open.end(), group) == open.end();
  });
  return ranking;
}

void ChooseExperts(const GateTopKArgs& args, int64_t row) {
  const GateRecipe& recipe = args.recipe;
  const std::span<const float> z(args.logits.row(row), args.logits.num_cols);
  std::vector<int32_t> all(z.size());
  std::iota(all.begin(), all.end(), 0);
  std::vector<double> scaled;
  for (const float value : z) scaled.push_back(double{recipe.logit_scale} * value);
  std::vector<double> p = SoftmaxAmong(scaled, all);
  if (recipe.score == GateScore::kSigmoid) {
    for (size_t e = 0; e < z.size(); ++e) p[e] = 1 / (1 + std::exp(-scaled[e]));
  }
  std::vector<float> selection(z.begin(), z.end());
  if (recipe.score == GateScore::kSigmoid || args.choice_bias != nullptr) {
    for (size_t e = 0; e < z.size(); ++e) {
      selection[e] = static_cast<float>(p[e]);
      if (args.choice_bias != nullptr) selection[e] += args.choice_bias[e];
    }
  }
  std::vector<int32_t> ranking = RankOpen(recipe, selection);
  const std::vector<int32_t> chosen(ranking.begin(), ranking.begin() + recipe.top_k);
  ranking.resize(args.expert_ids.num_cols, -1);
  if (recipe.score == GateScore::kSoftmaxOfChosen) p = SoftmaxAmong(scaled, chosen);
  double sum = 0;
  for (const int32_t e : chosen) sum += p[e];
  const double divisor = recipe.renormalise ? sum + 1e-20 : 1.0;
  for (size_t i = 0; i < ranking.size(); ++i) {
    const double p_of_rank = ranking[i] < 0 ? 0 : p[ranking[i]];
    args.expert_ids.row(row)[i] = ranking[i];
    args.weights.row(row)[i] = static_cast<float>(p_of_rank / divisor * recipe.scale);
    if (args.gate.data != nullptr) args.gate.row(row)[i] = static_cast<float>(p_of_rank);
  }
  if (!args.mass.empty()) args.mass[row] = static_cast<float>(sum);
}

}  // namespace

void ReferenceBackend::GateTopK(const GateTopKArgs& args) {
  CheckArgs(args);
  for (int64_t r = 0; r < args.logits.num_rows; ++r) {
    const std::span<const float> z(args.logits.row(r), args.logits.num_cols);
    if (std::all_of(z.begin(), z.end(), [](float v) { return std::isfinite(v); })) {
      ChooseExperts(args, r);
      continue;
    }
    args.row_failed[r] = 1;
    for (int i = 0; i < args.expert_ids.num_cols; ++i) {
      args.expert_ids.row(r)[i] = i < args.recipe.top_k ? i : -1;
      args.weights.row(r)[i] = 0;
      if (args.gate.data != nullptr) args.gate.row(r)[i] = 0;
    }
    if (!args.mass.empty()) args.mass[r] = 0;
  }
}

}  // namespace gatehouse
