// How the rows of one step are to be routed, in all its MoE layers. Views: the plan of the step and
// the requests' pinned policies own what they point to.
#pragma once

#include <span>
#include <vector>

#include "engine/moe/bounded_router.h"
#include "engine/moe/gate_scores.h"
#include "engine/moe/pinned_policy.h"
#include "engine/moe/route_decision.h"
#include "engine/moe/routed_token.h"

namespace gatehouse {

// Sees every layer's ranks and decisions, for the workbench and for traces. Called by the rank's
// thread between the gate and the experts: whatever it takes, the step takes.
class RouteObserver {
 public:
  virtual ~RouteObserver() = default;
  virtual void OnLayer(int moe_layer_idx, const GateScores& scores,
                       const RouteDecision& decision) = 0;
};

struct StepRouting {
  std::span<const RoutedToken> tokens;            // [num_rows]; empty: every row is exact
  std::span<const PinnedPolicy* const> policies;  // of tokens, by policy_idx
  RouteObserver* observer = nullptr;              // null costs nothing
  // What the observer sees of a row: so many ranks, though no reroute may ask for them. More than
  // there are experts: all.
  int num_observed_ranks = 0;
};

// The same at one layer.
struct LayerRouting {
  std::vector<RoutedToken> tokens;    // [num_rows]; exact where the layer is exempt
  std::vector<Affinity> affinities;   // [num_rows]
  std::vector<LayerPolicy> policies;  // by policy_idx; views into the pinned ones
  int num_ranked = 0;                 // that some row's reroute, or the observer, looks at
  bool any_bounded = false;           // else every row is exact here
};
LayerRouting RoutingOfLayer(const StepRouting& routing, int moe_layer_idx, int num_rows, int top_k);

}  // namespace gatehouse
