// What the last seconds brought, from totals that are sampled now and then. Thread-safe.
#pragma once

#include <deque>

#include "kernels/base/clock.h"
#include "kernels/base/mutex.h"
#include "server/prometheus_metrics.h"

namespace gatehouse {

struct RecentWork {
  double window_seconds = 0;  // 0: too early to say
  EngineTotals work;          // done in the window
};

class RateWindow {
 public:
  static constexpr Duration kWindow = std::chrono::seconds(10);

  // Times never go back.
  void Add(TimePoint now, const EngineTotals& totals) GATEHOUSE_EXCLUDES(mutex_);
  // Between the oldest sample within the window and the newest.
  RecentWork Read() const GATEHOUSE_EXCLUDES(mutex_);

 private:
  struct Sample {
    TimePoint time{};
    EngineTotals totals;
  };

  mutable Mutex mutex_;
  std::deque<Sample> samples_ GATEHOUSE_GUARDED_BY(mutex_);
};

}  // namespace gatehouse
