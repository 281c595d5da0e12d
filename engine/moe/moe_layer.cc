#include "engine/moe/moe_layer.h"

#include <vector>

#include "engine/moe/router.h"
#include "kernels/base/check.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

std::vector<Affinity> Of(std::span<const int32_t> rows, const std::vector<Affinity>& affinities) {
  std::vector<Affinity> own;
  for (const int32_t row : rows) own.push_back(affinities[row]);
  return own;
}

}  // namespace

absl::StatusOr<RoutePlan> MoeLayer::Forward(Backend& backend, Dispatcher& dispatcher,
                                            MatrixView<const float> x, const Step& step,
                                            const MoeWorkspace& workspace,
                                            MatrixView<float> out) const {
  // Score the experts and decide; rows to their experts; feed-forward; back, weighted sum; and the
  // expert of every row, unrouted.
  GATEHOUSE_ASSIGN_OR_RETURN(RoutePlan plan, Route(backend, dispatcher, x, step, workspace.logits));
  GATEHOUSE_ASSIGN_OR_RETURN(Dispatcher::Dispatched sent,
                             dispatcher.Dispatch(x, plan, step.moe_layer_idx, workspace));
  experts_.Run(backend, sent.batch);
  GATEHOUSE_RETURN_IF_ERROR(dispatcher.Combine(std::move(sent.handle), out));
  if (shared_) shared_->AddTo(backend, x, workspace, out);
  return plan;
}

absl::StatusOr<RoutePlan> MoeLayer::Choose(Backend& backend, Dispatcher& dispatcher,
                                           MatrixView<const float> x, const Step& step,
                                           MatrixView<float> logits) const {
  GATEHOUSE_ASSIGN_OR_RETURN(const GateChoice choice,
                             dispatcher.Gather(gate_.Choose(backend, x, logits, step.row_failed)));
  return RouteExact(choice);
}

absl::StatusOr<RoutePlan> MoeLayer::Route(Backend& backend, Dispatcher& dispatcher,
                                          MatrixView<const float> x, const Step& step,
                                          MatrixView<float> logits) const {
  const bool observed = step.routing.observer != nullptr;
  if (step.routing.tokens.empty() && !observed) return Choose(backend, dispatcher, x, step, logits);
  const LayerRouting layer =
      RoutingOfLayer(step.routing, step.moe_layer_idx, dispatcher.num_rows(), gate_.top_k());
  if (!layer.any_bounded && !observed) return Choose(backend, dispatcher, x, step, logits);
  const std::span<const int32_t> own_rows = dispatcher.own_rows();
  const std::vector<Affinity> affinities = Of(own_rows, layer.affinities);
  GATEHOUSE_ASSIGN_OR_RETURN(
      const GateScores scores,
      dispatcher.Gather(gate_.Score(backend, x, logits,
                                    {.num_ranked = layer.num_ranked, .affinities = affinities},
                                    step.row_failed)));
  const RowLimits no_limits;
  const absl::StatusOr<RouteDecision> decision = RouteBounded({.scores = scores,
                                                               .tokens = layer.tokens,
                                                               .policies = layer.policies,
                                                               .placement = placement_,
                                                               .limits = no_limits});
  // Policies were validated when they were set, and tokens are the scheduler's.
  GATEHOUSE_CHECK(decision.ok()) << decision.status().ToString();
  std::vector<uint8_t> failed(dispatcher.num_rows());
  for (const int32_t row : decision->failed_rows) failed[row] = 1;
  for (size_t i = 0; i < own_rows.size(); ++i) step.row_failed[i] |= failed[own_rows[i]];
  if (observed) step.routing.observer->OnLayer(step.moe_layer_idx, scores, *decision);
  return PlanOf(*decision, scores);
}

}  // namespace gatehouse
