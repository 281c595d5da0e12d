// From one placement of a layer's experts to another: what has to be copied and dropped. Pure
// functions; any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/moe/eplb.h"
#include "engine/moe/expert_placement.h"

namespace gatehouse {

struct ExpertMove {
  int32_t expert = 0;
  int32_t from_device = 0;  // holds the expert in the old placement
  int32_t to_device = 0;

  friend bool operator==(const ExpertMove&, const ExpertMove&) = default;
};

struct ExpertDrop {
  int32_t expert = 0;
  int32_t device = 0;

  friend bool operator==(const ExpertDrop&, const ExpertDrop&) = default;
};

// First every copy, then the drops: in between all experts are served, and a device may hold more
// than it has slots for.
struct PlacementChange {
  std::vector<ExpertMove> copies;  // by expert, then device
  std::vector<ExpertDrop> drops;   // likewise

  bool empty() const { return copies.empty() && drops.empty(); }
};

// A copy comes from the holder that sends least, ties to the lower device. The placements are of
// equally many experts; a device number means the same device in both.
PlacementChange MovesBetween(const ExpertPlacement& from, const ExpertPlacement& to);

// `next` with its devices numbered anew, so that less has to be copied from `current`: devices
// alike in throughput, slots and node change places, greedily by what they keep. What each has to
// do stays what it was.
ExpertPlacement KeepInPlace(const PlacementProblem& problem, const ExpertPlacement& current,
                            const ExpertPlacement& next);

}  // namespace gatehouse
