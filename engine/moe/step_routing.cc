#include "engine/moe/step_routing.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace gatehouse {

LayerRouting RoutingOfLayer(const StepRouting& routing, int moe_layer_idx, int num_rows,
                            int top_k) {
  LayerRouting layer{.num_ranked = top_k};
  if (routing.observer != nullptr) {
    layer.num_ranked = std::max(top_k, routing.num_observed_ranks);
  }
  for (const PinnedPolicy* pinned : routing.policies) {
    const auto layer_idx = static_cast<size_t>(moe_layer_idx);
    GATEHOUSE_CHECK(layer_idx < pinned->layer_exempt.size()) << pinned->layer_exempt.size();
    GATEHOUSE_CHECK(pinned->thresholds.empty() || layer_idx < pinned->thresholds.size())
        << pinned->thresholds.size();
    GATEHOUSE_CHECK(pinned->layer_policies.empty() || layer_idx < pinned->layer_policies.size())
        << pinned->layer_policies.size();
    LayerPolicy rules{.policy = &pinned->policy, .placement = &pinned->placement};
    if (!pinned->layer_policies.empty()) rules.policy = &pinned->layer_policies[layer_idx];
    if (!pinned->thresholds.empty()) rules.thresholds = pinned->thresholds[moe_layer_idx];
    layer.policies.push_back(rules);
  }
  layer.tokens.assign(routing.tokens.begin(), routing.tokens.end());
  layer.tokens.resize(num_rows);
  layer.affinities.assign(num_rows, Affinity::kGate);
  for (int row = 0; row < num_rows; ++row) {
    RoutedToken& token = layer.tokens[row];
    if (token.policy_idx < 0) continue;
    const PinnedPolicy& pinned = *routing.policies[token.policy_idx];
    layer.affinities[row] = pinned.affinity;
    if (pinned.layer_exempt[moe_layer_idx] != 0) token.mode = TokenMode::kExact;
    if (token.mode == TokenMode::kExact || token.padding) continue;
    layer.any_bounded = true;
    if (token.mode == TokenMode::kThreshold) continue;  // never reroutes
    const bool by_expert = pinned.policy.expert_choice.has_value();
    layer.num_ranked = std::max(layer.num_ranked, by_expert ? pinned.placement.num_experts()
                                                            : top_k + pinned.policy.reroute);
  }
  return layer;
}

}  // namespace gatehouse
