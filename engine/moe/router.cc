#include "engine/moe/router.h"

namespace gatehouse {

RoutePlan RouteExact(const GateChoice& choice) {
  const int k = choice.top_k;
  RoutePlan plan{.num_rows = choice.num_rows, .num_experts = choice.num_experts, .top_k = k};
  plan.slot_experts = choice.expert_ids;
  plan.slot_weights = choice.weights;

  // Counting sort by expert; rows are visited in order, so they ascend within an expert.
  plan.expert_begin.assign(choice.num_experts + 1, 0);
  plan.token_begin.assign(choice.num_rows + 1, 0);
  for (int row = 0; row < choice.num_rows; ++row) {
    const int num_slots = choice.row_failed[row] ? 0 : k;
    plan.token_begin[row + 1] = plan.token_begin[row] + num_slots;
    for (int slot = 0; slot < num_slots; ++slot) {
      ++plan.expert_begin[choice.expert_ids[row * k + slot] + 1];
    }
  }
  for (int e = 0; e < choice.num_experts; ++e) plan.expert_begin[e + 1] += plan.expert_begin[e];
  const int num_pairs = plan.token_begin.back();
  plan.row_ids.resize(num_pairs);
  std::vector<float> pair_weights(num_pairs);
  std::vector<int32_t> next(plan.expert_begin.begin(), plan.expert_begin.end() - 1);
  for (int row = 0; row < choice.num_rows; ++row) {
    if (choice.row_failed[row]) continue;
    for (int slot = 0; slot < k; ++slot) {
      const int pair = next[choice.expert_ids[row * k + slot]]++;
      plan.row_ids[pair] = row;
      pair_weights[pair] = choice.weights[row * k + slot];
    }
  }

  // The transpose: going through the pairs in expert order appends to each row its experts in
  // ascending order (R17).
  plan.assignment_ids.resize(num_pairs);
  plan.weights.resize(num_pairs);
  std::vector<int32_t> fill(plan.token_begin.begin(), plan.token_begin.end() - 1);
  for (int pair = 0; pair < num_pairs; ++pair) {
    const int at = fill[plan.row_ids[pair]]++;
    plan.assignment_ids[at] = pair;
    plan.weights[at] = pair_weights[pair];
  }
  return plan;
}

}  // namespace gatehouse
