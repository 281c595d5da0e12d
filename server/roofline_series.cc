#include "server/roofline_series.h"

namespace gatehouse {
namespace {

using prometheus::Counter;
using prometheus::Gauge;

struct Metric {
  const char* name;
  const char* help;
};
// clang-format off
constexpr Metric kReadBytes{"gatehouse_step_read_bytes_total", "Bytes that steps had to read: weights, keys and values."};       // kind
constexpr Metric kOperations{"gatehouse_step_operations_total", "Operations that steps had to do; a multiply-add is two."};      // kind
constexpr Metric kBoundSeconds{"gatehouse_step_bound_seconds_total", "Time that steps would have taken at the machine's limits."};  // phase
constexpr Metric kRatio{"gatehouse_step_roofline_ratio", "Share of the machine's limit that the last step reached."};             // phase
constexpr Metric kReadLimit{"gatehouse_machine_read_bytes_per_second", "Read bandwidth of memory, measured at the start."};      //
constexpr Metric kOperationLimit{"gatehouse_machine_operations_per_second", "Peak of the instruction set in use, measured at the start."};  // kind
// clang-format on

Counter& CounterOf(const Metric& metric, const prometheus::Labels& labels,
                   prometheus::Registry& registry) {
  return prometheus::BuildCounter()
      .Name(metric.name)
      .Help(metric.help)
      .Register(registry)
      .Add(labels);
}
Gauge& GaugeOf(const Metric& metric, const prometheus::Labels& labels,
               prometheus::Registry& registry) {
  return prometheus::BuildGauge()
      .Name(metric.name)
      .Help(metric.help)
      .Register(registry)
      .Add(labels);
}

}  // namespace

RooflineSeries::RooflineSeries(const MachineLimits& limits, const std::vector<std::string>& phases,
                               prometheus::Registry& registry)
    : limits_(limits),
      dense_bytes_(CounterOf(kReadBytes, {{"kind", "dense_weights"}}, registry)),
      expert_bytes_(CounterOf(kReadBytes, {{"kind", "expert_weights"}}, registry)),
      kv_bytes_(CounterOf(kReadBytes, {{"kind", "kv_cache"}}, registry)),
      float_operations_(CounterOf(kOperations, {{"kind", "float"}}, registry)),
      integer_operations_(CounterOf(kOperations, {{"kind", "integer"}}, registry)) {
  const bool measured = limits.read_bytes_per_second > 0;
  for (const std::string& phase : phases) {
    const prometheus::Labels labels = {{"phase", phase}};
    phases_.push_back({.bound_seconds = &CounterOf(kBoundSeconds, labels, registry),
                       .ratio = measured ? &GaugeOf(kRatio, labels, registry) : nullptr});
  }
  if (!measured) return;
  GaugeOf(kReadLimit, {}, registry).Set(limits.read_bytes_per_second);
  GaugeOf(kOperationLimit, {{"kind", "float"}}, registry).Set(limits.float_operations_per_second);
  GaugeOf(kOperationLimit, {{"kind", "integer"}}, registry)
      .Set(limits.integer_operations_per_second);
}

void RooflineSeries::OnStep(size_t phase_idx, const StepStats& stats) {
  const StepCost& cost = stats.cost;
  dense_bytes_.Increment(cost.dense_bytes);
  expert_bytes_.Increment(cost.expert_bytes);
  kv_bytes_.Increment(cost.kv_bytes);
  float_operations_.Increment(cost.operations.in_float);
  integer_operations_.Increment(cost.operations.in_integer);
  const PhaseSeries& phase = phases_[phase_idx];
  const double bound = BoundOf(cost, limits_).seconds();
  phase.bound_seconds->Increment(bound);
  if (phase.ratio != nullptr && stats.duration_seconds > 0) {
    phase.ratio->Set(bound / stats.duration_seconds);
  }
}

}  // namespace gatehouse
