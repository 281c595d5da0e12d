// A case of a route file, understood and decided: its settings become a gate recipe, a policy and a
// placement, the engine's router decides, and the outcome is compared with what the case expects.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/lab/route_file.h"
#include "engine/moe/bounded_router.h"

namespace gatehouse {

struct RouteOutcome {
  RouteDecision decision;
  int num_experts = 0;
  int num_devices = 0;
};

// INVALID_ARGUMENT: the settings contradict each other or the rows. Words that no setting takes are
// an OUT_OF_RANGE error with "line N: ..." instead: a fault of the file, which no case can expect.
absl::StatusOr<RouteOutcome> DecideRouteCase(const RouteCase& route_case);

// Every label of the format with its items, in the format's own writing.
std::vector<RouteExpectation> DescribeOutcome(const RouteOutcome& outcome);

// What differs, one line each: "line 7: e0: got 2 4, expected 2 5". OUT_OF_RANGE for a label or an
// item that the format does not know.
absl::StatusOr<std::vector<std::string>> CompareWithExpectations(const RouteCase& route_case,
                                                                 const RouteOutcome& outcome);

}  // namespace gatehouse
