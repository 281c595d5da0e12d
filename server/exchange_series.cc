#include "server/exchange_series.h"

namespace gatehouse {
namespace {

struct Metric {
  const char* name;
  const char* help;
};
// clang-format off
constexpr Metric kDuration{"gatehouse_alltoall_duration_seconds", "Time of an exchange between ranks, waiting included."};       // phase, backend
constexpr Metric kWait{"gatehouse_alltoall_wait_seconds", "Of it, time in which a rank waited for others."};                      // phase, backend
constexpr Metric kBytes{"gatehouse_alltoall_bytes_total", "Bytes between ranks; what a rank keeps is not counted."};              // phase, direction
constexpr Metric kRankTokens{"gatehouse_expert_rank_tokens_total", "Tokens that the experts of a rank computed, once for each expert."};  // rank
constexpr Metric kRankWait{"gatehouse_rank_wait_seconds_total", "Time that a rank waited for others: the slowest waits least."};  // rank
constexpr Metric kRankUp{"gatehouse_rank_up", "1 while the rank takes part in steps."};                                           // rank
constexpr Metric kRankLosses{"gatehouse_rank_losses_total", "Groups that went on without the rank that had been in the last."};   // rank
constexpr Metric kEpoch{"gatehouse_group_epoch", "Groups that the ranks have formed: it rises when one is lost or comes back."};
constexpr Metric kRegroup{"gatehouse_regroup_duration_seconds", "Time without steps while ranks formed a new group."};
// clang-format on

const prometheus::Histogram::BucketBoundaries& Buckets() {
  static const prometheus::Histogram::BucketBoundaries buckets = [] {
    prometheus::Histogram::BucketBoundaries bounds;
    for (double bound = 5e-6; bound < 10; bound *= 2) bounds.push_back(bound);  // 5 us to 5.2 s
    return bounds;
  }();
  return buckets;
}

prometheus::Family<prometheus::Counter>& Counters(const Metric& metric,
                                                  prometheus::Registry& registry) {
  return prometheus::BuildCounter().Name(metric.name).Help(metric.help).Register(registry);
}
prometheus::Family<prometheus::Gauge>& Gauges(const Metric& metric,
                                              prometheus::Registry& registry) {
  return prometheus::BuildGauge().Name(metric.name).Help(metric.help).Register(registry);
}
prometheus::Family<prometheus::Histogram>& Histograms(const Metric& metric,
                                                      prometheus::Registry& registry) {
  return prometheus::BuildHistogram().Name(metric.name).Help(metric.help).Register(registry);
}

}  // namespace

ExchangeSeries::ExchangeSeries(const ExchangeGroup& group, prometheus::Registry& registry) {
  const Membership& membership = group.membership;
  if (membership.num_ranks == 1) return;
  for (int i = 0; i < kNumExchangePhases; ++i) {
    const std::string phase(kExchangePhaseNames[i]);
    const prometheus::Labels labels = {{"phase", phase}, {"backend", group.backend}};
    auto& bytes = Counters(kBytes, registry);
    phases_[i] = {.duration = &Histograms(kDuration, registry).Add(labels, Buckets()),
                  .wait = &Histograms(kWait, registry).Add(labels, Buckets()),
                  .sent = &bytes.Add({{"phase", phase}, {"direction", "sent"}}),
                  .received = &bytes.Add({{"phase", phase}, {"direction", "received"}})};
  }
  for (int r = 0; r < membership.num_ranks; ++r) {
    const prometheus::Labels labels = {{"rank", std::to_string(r)}};
    ranks_.push_back({.tokens = &Counters(kRankTokens, registry).Add(labels),
                      .wait_seconds = &Counters(kRankWait, registry).Add(labels),
                      .up = &Gauges(kRankUp, registry).Add(labels),
                      .losses = &Counters(kRankLosses, registry).Add(labels)});
  }
  epoch_ = &Gauges(kEpoch, registry).Add({});
  regroup_ = &Histograms(kRegroup, registry).Add({}, Buckets());
  SetMembership(membership);
}

void ExchangeSeries::SetMembership(const Membership& membership) {
  for (int r = 0; r < membership.num_ranks; ++r) {
    const double up = membership.has(r) ? 1 : 0;
    if (up < ranks_[r].up->Value()) ranks_[r].losses->Increment();
    ranks_[r].up->Set(up);
  }
  epoch_->Set(static_cast<double>(membership.epoch));
}

void ExchangeSeries::OnRegroup(const Membership& membership, double seconds) {
  SetMembership(membership);
  regroup_->Observe(seconds);
}

void ExchangeSeries::OnStep(std::span<const RankExchanges> ranks) {
  for (size_t r = 0; r < ranks.size(); ++r) {
    ranks_[r].tokens->Increment(static_cast<double>(ranks[r].num_computed));
    for (const ExchangeCall& call : ranks[r].calls) {
      const PhaseSeries& phase = phases_[static_cast<size_t>(call.phase)];
      const CommStats& spent = call.spent;
      phase.duration->Observe(spent.wait_seconds + spent.move_seconds);
      phase.wait->Observe(spent.wait_seconds);
      phase.sent->Increment(static_cast<double>(spent.bytes_sent));
      phase.received->Increment(static_cast<double>(spent.bytes_received));
      ranks_[r].wait_seconds->Increment(spent.wait_seconds);
    }
  }
}

}  // namespace gatehouse
