// One rank of the deployment as the group sees it: in this process (local_rank.h), or in another at
// the other end of a connection.
//
// Owned by the group (group_worker.h). Join, Place and Run are called by one thread at a time,
// those of several ranks side by side; Lose and is_up by any thread, also while the others run.
#pragma once

#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/comm/membership.h"
#include "engine/moe/expert_placement.h"
#include "engine/moe/step_routing.h"
#include "engine/moe/step_rows.h"
#include "engine/rank.h"
#include "engine/rank_slice.h"
#include "kernels/backend.h"

namespace gatehouse {

// Of one step, what one rank is told. All of it outlives the call.
struct RankStep {
  const StepRows* rows = nullptr;         // of the whole step
  StepRouting routing;                    // likewise
  const RankSlice* slice = nullptr;       // the rank's own
  std::span<const RowSampling> sampling;  // one for each of slice->logit_rows
};

class RankPeer {
 public:
  virtual ~RankPeer() = default;
  // Becomes a member of a new group; returns when all of them have, or UNAVAILABLE. What was placed
  // before need not be known any more: every layer is placed again before the next Run.
  virtual absl::Status Join(const Membership& membership) = 0;
  virtual void Place(int moe_layer_idx, const ExpertPlacement& placement) = 0;
  // UNAVAILABLE when a member is lost, this one or another.
  virtual absl::StatusOr<RankResult> Run(const RankStep& step) = 0;
  // Another member is lost: calls of this group fail from now on, one that waits now too.
  virtual void Lose(int rank) = 0;
  // Whether it can be a member of the next group.
  virtual bool is_up() const = 0;
  // How often it has come back: each time its cache is empty. Before is_up says that it is there.
  virtual int64_t num_returns() const { return 0; }
};

}  // namespace gatehouse
