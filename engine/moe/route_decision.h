// What bounded routing decided for one layer and step, pair by pair, with its reasons: what a
// report is counted from and a case file is compared with. A value.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "engine/moe/routing_policy.h"

namespace gatehouse {

enum class PairFate : uint8_t { kKept, kRerouted, kDropped };

// Why a pair was not kept: it was behind the places of its expert (R12), beyond the budget of its
// device (R13), below its threshold (R18), or gave its place to a token without another (R15).
enum class EvictionCause : uint8_t { kNone, kExpert, kDevice, kThreshold, kCoverage };
inline constexpr int kNumEvictionCauses = 5;

struct PairDecision {
  int32_t row = 0;
  int32_t slot = 0;           // place among the row's chosen experts
  int32_t chosen_expert = 0;  // of the gate
  int32_t expert = 0;         // that computes the pair, unless it was dropped
  int32_t device = -1;        // where; -1: dropped
  float gate = 0;             // P of `expert`
  float chosen_gate = 0;      // P of `chosen_expert`
  float weight = 0;           // of the output of `expert`, after R16; 0: dropped
  float chosen_weight = 0;    // g of `chosen_expert`
  PairFate fate = PairFate::kKept;
  EvictionCause cause = EvictionCause::kNone;  // of the last eviction, unless kept
};

// What the places of an expert come from (R9 to R11): nothing bounds it; its ceiling, fixed, by the
// factor or by zeta; a floor that is eager, by mass, error or theory; memory for rows.
enum class BoundCause : uint8_t { kNone, kFixed, kFactor, kZeta, kMass, kEcr, kTheory, kMemory };
inline constexpr int kNumBoundCauses = 8;

// The bounds of one domain: of shared tokens, of one rank of them, or of a block.
struct DomainBounds {
  int32_t domain = 0;
  int32_t rank = 0;
  int64_t ceiling = kNoBound;             // C_up
  std::vector<int64_t> floors;            // [num_experts] F
  std::vector<int64_t> expert_places;     // [num_experts] C
  std::vector<BoundCause> expert_causes;  // [num_experts] of C
  std::vector<int64_t> device_budgets;    // [num_devices] B
  std::vector<int64_t> device_loads;      // [num_devices] pairs placed; shared domains only
  std::vector<uint8_t> expert_pressure;   // [num_experts] its floor did not fit
  std::vector<int64_t> device_pressure;   // [num_devices] pairs evicted below a floor
};

struct RouteDecision {
  std::vector<PairDecision> pairs;  // by row, then slot
  std::vector<int32_t> pair_begin;  // [num_rows + 1] into pairs
  // Indices into pairs, in the order of the decisions.
  std::vector<int32_t> evicted;
  // Given back to a token that had lost all its pairs: within the bounds, and beyond them.
  std::vector<int32_t> covered;
  std::vector<int32_t> overrides;
  std::vector<int32_t> bare_rows;          // had pairs, kept none
  std::vector<int32_t> failed_rows;        // of requests with a number that is not finite
  std::vector<DomainBounds> bounds;        // of the shared domains, in order
  std::vector<DomainBounds> block_bounds;  // of the blocks, by request and position
};

// R20, of one decision. Over layers and steps the mass is the ratio of the sums.
struct RouteReport {
  int64_t assignments = 0;
  int64_t kept = 0;
  int64_t rerouted = 0;
  int64_t dropped = 0;
  double gate_mass = 0;       // of all pairs
  double gate_mass_kept = 0;  // of those computed, with their final experts
  // Rows that had lost all their pairs: given one back within the bounds, beyond them, or none.
  int64_t covered = 0;
  int64_t overrides = 0;
  int64_t bare = 0;
  RouteReport& operator+=(const RouteReport& other);
  bool exact() const { return rerouted == 0 && dropped == 0 && overrides == 0; }
};
RouteReport Summarise(const RouteDecision& decision);

// What the bounds of one layer and step were and did to its experts and devices, for those who
// watch the server.
struct BoundsOutcome {
  std::vector<int64_t> expert_rerouted;  // [num_experts] pairs that chose it and went elsewhere
  std::vector<int64_t> expert_dropped;   // [num_experts] pairs that chose it and nobody computed
  std::vector<int64_t> expert_received;  // [num_experts] pairs that chose another and came to it
  std::array<int64_t, kNumEvictionCauses> rerouted{};  // pairs, by why they were evicted
  std::array<int64_t, kNumEvictionCauses> dropped{};   // likewise
  // [num_experts] C, summed over domains and blocks (kNoBound: none bounds it); empty: there was
  // neither.
  std::vector<int64_t> expert_capacity;
  std::array<int64_t, kNumBoundCauses> causes{};  // experts of each domain and block
  // Experts whose floor did not fit, and pairs that devices evicted below a floor.
  int64_t pressure = 0;
  double device_usage = 0;  // most loaded device over its budget, of any domain; 0: no budget
  // [num_devices] of the domains that give them a budget, summed; empty: none did.
  std::vector<int64_t> device_budgets;
  std::vector<int64_t> device_loads;
};
BoundsOutcome OutcomeOf(const RouteDecision& decision, int num_experts);

}  // namespace gatehouse
