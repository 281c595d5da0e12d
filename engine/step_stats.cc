#include "engine/step_stats.h"

namespace gatehouse {

LayerLoad LayerLoadOf(int layer, const RoutePlan& route, std::span<const RoutedToken> tokens) {
  LayerLoad load{.layer = layer,
                 .expert_tokens = std::vector<int64_t>(route.num_experts),
                 .reports = ReportByMode(route, tokens),
                 .bounds = route.bounds};
  for (int e = 0; e < route.num_experts; ++e) {
    load.expert_tokens[e] = route.expert_begin[e + 1] - route.expert_begin[e];
  }
  return load;
}

}  // namespace gatehouse
