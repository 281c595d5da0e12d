#include "engine/moe/moe_layer.h"

#include "engine/moe/router.h"
#include "kernels/base/check.h"

namespace gatehouse {

RoutePlan MoeLayer::Forward(MatrixView<const float> x, const Step& step,
                            const MoeWorkspace& workspace, MatrixView<float> out) const {
  RoutePlan plan = Route(x, step, workspace.logits);                // score the experts, decide
  auto [batch, handle] = dispatcher_.Dispatch(x, plan, workspace);  // rows to their experts
  experts_.Run(batch);                                              // feed-forward
  dispatcher_.Combine(std::move(handle), out);                      // back, weighted sum
  if (shared_) shared_->AddTo(x, workspace, out);                   // every row, unrouted
  return plan;
}

RoutePlan MoeLayer::Route(MatrixView<const float> x, const Step& step,
                          MatrixView<float> logits) const {
  const bool observed = step.routing.observer != nullptr;
  if (step.routing.tokens.empty() && !observed) {
    return RouteExact(gate_.Choose(x, logits, step.row_failed));
  }
  const LayerRouting layer =
      RoutingOfLayer(step.routing, step.moe_layer_idx, static_cast<int>(x.num_rows), gate_.top_k());
  if (!layer.any_bounded && !observed) {
    return RouteExact(gate_.Choose(x, logits, step.row_failed));
  }
  const GateScores scores = gate_.Score(
      x, logits, {.num_ranked = layer.num_ranked, .affinities = layer.affinities}, step.row_failed);
  const RowLimits no_limits;
  const absl::StatusOr<RouteDecision> decision = RouteBounded({.scores = scores,
                                                               .tokens = layer.tokens,
                                                               .policies = layer.policies,
                                                               .placement = placement_,
                                                               .limits = no_limits});
  // Policies were validated when they were set, and tokens are the scheduler's.
  GATEHOUSE_CHECK(decision.ok()) << decision.status().ToString();
  for (const int32_t row : decision->failed_rows) step.row_failed[row] = 1;
  if (observed) step.routing.observer->OnLayer(step.moe_layer_idx, scores, *decision);
  return PlanOf(*decision, scores);
}

}  // namespace gatehouse
