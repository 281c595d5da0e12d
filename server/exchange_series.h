// The metrics of what ranks exchange (engine/moe/exchange_call.h): names, help and labels stand in
// the table of exchange_series.cc. They appear with the first step of several ranks.
//
// Owner: the model's series; OnStep is called by the engine loop alone.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <span>
#include <string>
#include <vector>

#include "engine/moe/exchange_call.h"

namespace gatehouse {

class ExchangeSeries {
 public:
  explicit ExchangeSeries(prometheus::Registry& registry) : registry_(registry) {}
  void OnStep(std::span<const RankExchanges> ranks);

 private:
  struct PhaseSeries {
    prometheus::Histogram* duration = nullptr;
    prometheus::Histogram* wait = nullptr;
    prometheus::Counter* sent = nullptr;
    prometheus::Counter* received = nullptr;
  };
  struct RankSeries {
    prometheus::Counter* tokens = nullptr;
    prometheus::Counter* wait_seconds = nullptr;
  };

  void Register(size_t num_ranks);

  prometheus::Registry& registry_;
  std::array<PhaseSeries, kNumExchangePhases> phases_{};
  std::vector<RankSeries> ranks_;  // empty: no step of several ranks yet
};

}  // namespace gatehouse
