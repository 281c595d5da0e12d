#include "engine/moe/expert_choice.h"

#include <algorithm>

#include "engine/moe/capacity.h"
#include "engine/moe/pair_key.h"

namespace gatehouse {

void ChooseTokensByExpert(const RoutingStep& step, const RoutingPolicy& policy,
                          std::span<const int32_t> rows,
                          std::map<int32_t, std::vector<int32_t>>& chosen) {
  struct Candidate {
    PairKey key;
    int32_t row = 0;
    int32_t rank_idx = 0;
  };
  const GateScores& scores = step.scores;
  std::vector<std::vector<Candidate>> candidates(scores.num_experts);
  for (const int32_t row : rows) {
    chosen[row].clear();
    for (int32_t i = 0; i < scores.num_ranked; ++i) {
      const int32_t expert = scores.ranked_ids[scores.At(row, i)];
      if (expert < 0) break;
      candidates[expert].push_back({KeyOf(step, policy, {row, i, i}, /*in_block=*/false), row, i});
    }
  }
  const auto num_tokens = static_cast<double>(rows.size());
  const int64_t places = CeilNear(*policy.expert_choice * num_tokens / scores.num_experts);
  for (std::vector<Candidate>& of_expert : candidates) {
    std::sort(of_expert.begin(), of_expert.end(),
              [](const Candidate& a, const Candidate& b) { return a.key < b.key; });
    const auto count = std::min<int64_t>(places, static_cast<int64_t>(of_expert.size()));
    for (int64_t i = 0; i < count; ++i) chosen[of_expert[i].row].push_back(of_expert[i].rank_idx);
  }
  for (const int32_t row : rows) {
    std::sort(chosen[row].begin(), chosen[row].end(), [&](int32_t a, int32_t b) {
      const float fa = scores.affinity[scores.At(row, a)], fb = scores.affinity[scores.At(row, b)];
      return fa != fb ? fa > fb : a < b;
    });
  }
}

}  // namespace gatehouse
