#include "engine/moe/router.h"

#include <algorithm>

namespace gatehouse {
namespace {

// Both orders of the pairs, from slot_experts and slot_weights.
void ArrangePairs(RoutePlan& plan) {
  const int k = plan.top_k;
  // Counting sort by expert; rows are visited in order, so they ascend within an expert.
  plan.expert_begin.assign(plan.num_experts + 1, 0);
  plan.token_begin.assign(plan.num_rows + 1, 0);
  for (int row = 0; row < plan.num_rows; ++row) {
    int num_pairs = 0;
    for (int slot = 0; slot < k; ++slot) {
      const int32_t expert = plan.slot_experts[int64_t{row} * k + slot];
      if (expert < 0) continue;
      ++plan.expert_begin[expert + 1];
      ++num_pairs;
    }
    plan.token_begin[row + 1] = plan.token_begin[row] + num_pairs;
  }
  for (int e = 0; e < plan.num_experts; ++e) plan.expert_begin[e + 1] += plan.expert_begin[e];
  const int num_pairs = plan.token_begin.back();
  plan.row_ids.resize(num_pairs);
  std::vector<float> pair_weights(num_pairs);
  std::vector<int32_t> next(plan.expert_begin.begin(), plan.expert_begin.end() - 1);
  for (int row = 0; row < plan.num_rows; ++row) {
    for (int64_t at = int64_t{row} * k; at < (int64_t{row} + 1) * k; ++at) {
      if (plan.slot_experts[at] < 0) continue;
      const int pair = next[plan.slot_experts[at]]++;
      plan.row_ids[pair] = row;
      pair_weights[pair] = plan.slot_weights[at];
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
}

}  // namespace

RoutePlan RouteExact(const GateChoice& choice) {
  RoutePlan plan{
      .num_rows = choice.num_rows, .num_experts = choice.num_experts, .top_k = choice.top_k};
  plan.slot_experts = choice.expert_ids;
  plan.slot_weights = choice.weights;
  plan.row_mass = choice.mass;
  for (int row = 0; row < choice.num_rows; ++row) {
    if (choice.row_failed[row] == 0) continue;
    const int64_t first = int64_t{row} * choice.top_k;
    std::fill_n(plan.slot_experts.begin() + first, choice.top_k, -1);
    std::fill_n(plan.slot_weights.begin() + first, choice.top_k, 0.0f);
    plan.row_mass[row] = 0;
  }
  ArrangePairs(plan);
  return plan;
}

RoutePlan PlanOf(const RouteDecision& decision, const GateScores& scores) {
  int k = scores.top_k;  // where experts choose, a row may have more
  for (const PairDecision& pair : decision.pairs) k = std::max(k, pair.slot + 1);
  const size_t num_slots = static_cast<size_t>(scores.num_rows) * k;
  RoutePlan plan{.num_rows = scores.num_rows, .num_experts = scores.num_experts, .top_k = k};
  plan.slot_experts.assign(num_slots, -1);
  plan.slot_weights.assign(num_slots, 0);
  plan.slot_fates.assign(num_slots, SlotFate::kEmpty);
  plan.row_mass.assign(scores.num_rows, 0);
  plan.row_mass_kept.assign(scores.num_rows, 0);
  plan.row_marks.assign(scores.num_rows, RowMark::kNone);
  for (const PairDecision& pair : decision.pairs) {
    plan.row_mass[pair.row] += pair.chosen_gate;
    const int64_t at = int64_t{pair.row} * k + pair.slot;
    if (pair.fate == PairFate::kDropped) {
      plan.slot_fates[at] = SlotFate::kDropped;
      continue;
    }
    plan.slot_experts[at] = pair.expert;
    plan.slot_weights[at] = pair.weight;
    plan.slot_fates[at] = pair.fate == PairFate::kKept ? SlotFate::kKept : SlotFate::kRerouted;
    plan.row_mass_kept[pair.row] += pair.gate;
  }
  for (const int32_t id : decision.covered) {
    plan.row_marks[decision.pairs[id].row] = RowMark::kCovered;
  }
  for (const int32_t id : decision.overrides) {
    plan.row_marks[decision.pairs[id].row] = RowMark::kOverride;
  }
  for (const int32_t row : decision.bare_rows) plan.row_marks[row] = RowMark::kBare;
  plan.bounds = OutcomeOf(decision, scores.num_experts);
  ArrangePairs(plan);
  return plan;
}

}  // namespace gatehouse
