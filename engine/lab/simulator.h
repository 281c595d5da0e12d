// Routes a recorded trace again, under another policy or placement: what would each device have had
// to do?
#pragma once

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "engine/lab/eval_policy.h"
#include "engine/lab/layer_placements.h"
#include "engine/lab/route_meter.h"
#include "engine/moe/route_trace.h"

namespace gatehouse {

// Adds what a step asks of each expert of each layer.
void AddLoads(const TraceHeader& header, const TraceStep& step, LayerLoads& loads);

// One policy over the steps of a trace, as they come.
class Simulator {
 public:
  // Shared tokens: the prefill rows of a step are one domain, its decode rows another, exact unless
  // the policy bounds decode.
  // The placements take the place of the policy's.
  Simulator(const TraceHeader& header, const PinnedPolicy& policy, LayerPlacements placements)
      : header_(header),
        policy_(policy),
        placements_(std::move(placements)),
        meter_(placements_.layers()) {}
  Simulator(const Simulator&) = delete;
  Simulator& operator=(const Simulator&) = delete;

  // INVALID_ARGUMENT for what the router refuses.
  absl::Status Add(const TraceStep& step);
  const RouteMeter& meter() const { return meter_; }
  const LayerPlacements& placements() const { return placements_; }

 private:
  TraceHeader header_;
  const PinnedPolicy policy_;
  LayerPlacements placements_;
  RouteMeter meter_;
};

}  // namespace gatehouse
