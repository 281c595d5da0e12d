// The metrics of what ranks exchange (engine/moe/exchange_call.h): names, help and labels stand in
// the table of exchange_series.cc. Of one rank there are none.
//
// Owner: the model's series; OnStep and OnRegroup are called by the engine loop alone.
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

#include "engine/comm/membership.h"
#include "engine/moe/exchange_call.h"

namespace gatehouse {

// Who exchanges rows, and by what.
struct ExchangeGroup {
  Membership membership = AllRanks(1);
  std::string backend = "in_process";  // or "gloo"
};

class ExchangeSeries {
 public:
  ExchangeSeries(const ExchangeGroup& group, prometheus::Registry& registry);
  void OnStep(std::span<const RankExchanges> ranks);
  void OnRegroup(const Membership& membership, double seconds);

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
    prometheus::Gauge* up = nullptr;
    prometheus::Counter* losses = nullptr;
  };

  void SetMembership(const Membership& membership);

  std::array<PhaseSeries, kNumExchangePhases> phases_{};
  std::vector<RankSeries> ranks_;  // empty: there is one
  prometheus::Gauge* epoch_ = nullptr;
  prometheus::Histogram* regroup_ = nullptr;
};

}  // namespace gatehouse
