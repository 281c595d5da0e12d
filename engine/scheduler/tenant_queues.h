// The sequences that wait, a queue for each tenant, and what each tenant has been served: says who
// starts next. Within a tenant the order is by turn; between tenants by fair_share.h.
//
// A tenant that begins to wait is lifted to the least counter of those who wait: what it did not
// use while it was away is gone, so it can neither save up nor starve the others. Tenants at their
// own limit of running requests are passed over.
//
// Owner: the scheduler; its thread. Sequences are the scheduler's and outlive their stay here.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "engine/request/tenant.h"
#include "engine/scheduler/fair_share.h"
#include "engine/scheduler/sequence.h"

namespace gatehouse {

struct TenantState {
  Tenant tenant;  // as the latest request has it
  TenantUse use;
  std::set<Sequence*, RunsBefore> waiting;
  int64_t num_waiting_tokens = 0;
  bool over_share = false;  // in the plan that is being made

  int32_t num_waiting() const { return static_cast<int32_t>(waiting.size()); }
  bool is_active() const { return !waiting.empty() || use.num_running > 0; }
  bool may_start() const {
    return !waiting.empty() &&
           (tenant.max_running_requests == 0 || use.num_running < tenant.max_running_requests);
  }
};

class TenantQueues {
 public:
  // The state of a request's tenant, with the values the request brings. Stays where it is.
  TenantState& StateOf(const Request& request);

  // A sequence that has just arrived, or one that was there before: preempted, or another output.
  void Arrive(Sequence& sequence);
  void Return(Sequence& sequence);
  void Leave(Sequence& sequence);
  // 1: a sequence begins to run, -1: it no longer does.
  void CountRunning(const Sequence& sequence, int32_t change);

  // Who starts next; null when nobody may.
  Sequence* Next() const;
  void Charge(TenantState& state, int64_t num_tokens);

  int32_t num_waiting() const { return num_waiting_; }
  int64_t num_waiting_tokens() const { return num_waiting_tokens_; }
  const PriorityCounts& priority_counts() const { return priority_counts_; }
  std::span<const std::unique_ptr<TenantState>> states() const { return states_; }

  // Counts equal what the queues and `running` hold: INTERNAL otherwise.
  absl::Status CheckInvariants(std::span<Sequence* const> running) const;

 private:
  std::vector<std::unique_ptr<TenantState>> states_;  // as many as the tenants file ever named
  std::unordered_map<std::string, TenantState*> name_to_state_;
  PriorityCounts priority_counts_;
  int32_t num_waiting_ = 0;
  int64_t num_waiting_tokens_ = 0;
  int64_t num_joined_ = 0;
  double last_left_ = 0;  // counter of the tenant whose queue ran empty last
};

}  // namespace gatehouse
