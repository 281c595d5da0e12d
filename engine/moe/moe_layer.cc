#include "engine/moe/moe_layer.h"

#include "engine/moe/router.h"

namespace gatehouse {

RoutePlan MoeLayer::Forward(MatrixView<const float> x, const MoeWorkspace& workspace,
                            std::span<uint8_t> row_failed, MatrixView<float> out) const {
  const GateChoice choice = gate_.Choose(x, workspace.logits, row_failed);  // score the experts
  RoutePlan plan = RouteExact(choice);                                      // decide
  auto [batch, handle] = dispatcher_.Dispatch(x, plan, workspace);          // rows to their experts
  experts_.Run(batch);                                                      // feed-forward
  dispatcher_.Combine(std::move(handle), out);                              // back, weighted sum
  if (shared_) shared_->AddTo(x, workspace, out);                           // every row, unrouted
  return plan;
}

}  // namespace gatehouse
