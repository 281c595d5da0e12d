// The metrics of experts and of routing bounds, made when /metrics is read from the one place that
// counts them. The table of their names stands in expert_series.cc.
//
//   level 0   totals by mode, cause and device
//   level 1   and by layer
//   level 2   and by expert
//
// How many series there are at most stands in docs/operations.md. What only bounds can move appears
// with the first step that they took part in.
#pragma once

#include <prometheus/metric_family.h>

#include <vector>

#include "server/expert_load.h"

namespace gatehouse {

// Families without a series are left out.
std::vector<prometheus::MetricFamily> ExpertFamilies(const std::vector<LayerLoadCounts>& layers,
                                                     int level);

}  // namespace gatehouse
