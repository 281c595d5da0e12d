// A Mixture-of-Experts feed-forward layer: choose, decide, send, compute, bring back.
// Owned by the transformer; used by the rank's thread.
#pragma once

#include <span>
#include <utility>

#include "engine/moe/dispatcher.h"
#include "engine/moe/experts.h"
#include "engine/moe/gate.h"
#include "engine/moe/route_plan.h"

namespace gatehouse {

class MoeLayer {
 public:
  MoeLayer(Backend& backend, Gate gate, Experts experts)
      : gate_(std::move(gate)), dispatcher_(backend), experts_(std::move(experts)) {}

  // out [num_rows, hidden] = the experts' weighted sum for x [num_rows, hidden]. Returns what was
  // decided, for reports; rows whose gate fails are marked in row_failed and get 0.
  RoutePlan Forward(MatrixView<const float> x, const MoeWorkspace& workspace,
                    std::span<uint8_t> row_failed, MatrixView<float> out) const;

 private:
  Gate gate_;
  Dispatcher dispatcher_;
  Experts experts_;
};

}  // namespace gatehouse
