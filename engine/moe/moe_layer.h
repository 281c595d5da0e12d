// A Mixture-of-Experts feed-forward layer: choose, decide, send, compute, bring back.
// Owned by the transformer; used by the rank's thread.
#pragma once

#include <optional>
#include <span>
#include <utility>

#include "engine/moe/dispatcher.h"
#include "engine/moe/experts.h"
#include "engine/moe/gate.h"
#include "engine/moe/route_plan.h"
#include "engine/moe/shared_expert.h"

namespace gatehouse {

class MoeLayer {
 public:
  MoeLayer(Backend& backend, Gate gate, Experts experts, std::optional<SharedExpert> shared)
      : gate_(std::move(gate)),
        dispatcher_(backend),
        experts_(std::move(experts)),
        shared_(std::move(shared)) {}

  // out [num_rows, hidden] = the experts' weighted sum for x [num_rows, hidden], and the shared
  // one. Returns what was decided, for reports; rows whose gate fails are marked in row_failed and
  // get 0.
  RoutePlan Forward(MatrixView<const float> x, const MoeWorkspace& workspace,
                    std::span<uint8_t> row_failed, MatrixView<float> out) const;

 private:
  Gate gate_;
  Dispatcher dispatcher_;
  Experts experts_;
  std::optional<SharedExpert> shared_;
};

}  // namespace gatehouse
