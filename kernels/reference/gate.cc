#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/op_checks.h"
#include "kernels/reference/reference_backend.h"

namespace gatehouse {
namespace {

// Rule R4: P = softmax over all experts.
std::vector<double> Softmax(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p;
  for (const float z : logits) p.push_back(std::exp(z - largest));
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= total;
  return p;
}

}  // namespace

void ReferenceBackend::GateTopK(const GateTopKArgs& args) {
  CheckArgs(args);
  const int64_t num_experts = args.logits.num_cols;
  for (int64_t r = 0; r < args.logits.num_rows; ++r) {
    const std::span<const float> z(args.logits.row(r), num_experts);
    std::vector<int32_t> ranking(num_experts);  // rule R6: logit descending, ties to the lower id
    std::iota(ranking.begin(), ranking.end(), 0);
    const bool failed = !std::all_of(z.begin(), z.end(), [](float v) { return std::isfinite(v); });
    if (failed) {
      args.row_failed[r] = 1;
    } else {
      std::stable_sort(ranking.begin(), ranking.end(), [&](int a, int b) { return z[a] > z[b]; });
    }
    const std::vector<double> p = failed ? std::vector<double>(num_experts) : Softmax(z);
    double chosen_sum = 0;
    for (int slot = 0; slot < args.top_k; ++slot) chosen_sum += p[ranking[slot]];
    const double divisor = args.renormalise ? chosen_sum + 1e-20 : 1.0;
    for (int slot = 0; slot < args.top_k; ++slot) {
      args.expert_ids.row(r)[slot] = ranking[slot];
      args.weights.row(r)[slot] = static_cast<float>(p[ranking[slot]] / divisor * args.scale);
    }
  }
}

}  // namespace gatehouse
