// Routes a recorded trace again, under another policy or placement: what would each device have had
// to do?
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/lab/eval_policy.h"
#include "engine/lab/route_meter.h"
#include "engine/moe/expert_placement.h"
#include "engine/moe/route_trace.h"

namespace gatehouse {

// Pairs that each expert was asked to compute, over all layers and steps.
using ExpertLoad = std::vector<int64_t>;  // [num_experts]

// Linear, with second copies of the `num_replicas` most wanted experts (ties to the lower id), each
// on the device that then has the least to do of those without one.
ExpertPlacement PlaceWithReplicas(const ExpertLoad& load, int num_devices, int num_replicas);

// One policy over the steps of a trace, as they come.
class Simulator {
 public:
  // Shared tokens: the prefill rows of a step are one domain, its decode rows another, exact unless
  // the policy bounds decode.
  Simulator(const TraceHeader& header, const PinnedPolicy& policy)
      : header_(header), policy_(policy), meter_(&policy_.placement) {}
  Simulator(const Simulator&) = delete;
  Simulator& operator=(const Simulator&) = delete;

  // INVALID_ARGUMENT for what the router refuses.
  absl::Status Add(const TraceStep& step);
  const RouteMeter& meter() const { return meter_; }

 private:
  TraceHeader header_;
  const PinnedPolicy policy_;
  RouteMeter meter_;
};

}  // namespace gatehouse
