// How routing may be bounded: the settings of rules R8 to R18 of docs/routing.md. A value; the same
// policy and the same rows always give the same decisions.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string_view>

#include "absl/status/status.h"

namespace gatehouse {

// What a token's routing may depend on.
enum class TokenMode {
  kExact,        // on nothing: every chosen expert computes it
  kThreshold,    // isolated: on its own affinities
  kBlock,        // isolated: on the aligned block of its request
  kBlockCausal,  // isolated: the same, but only on the positions up to its own
  kShared,       // on all tokens of its domain
};
inline constexpr int kNumTokenModes = 5;
constexpr const char* TokenModeName(TokenMode mode) {
  constexpr const char* kNames[] = {"exact", "threshold", "block", "block_causal", "shared"};
  return kNames[static_cast<int>(mode)];
}

// In which order pairs are kept (R8).
enum class PairOrder { kScore, kArrival, kReverse, kRandom };
enum class PairTier { kOff, kFirst, kRank };

// By what an expert ranks its pairs (R5): the gate value P; its share of the sum over the token's
// chosen experts; the cosine of the hidden row and the expert's gate row.
enum class Affinity { kGate, kShare, kCosine };

constexpr int64_t kNoBound = std::numeric_limits<int64_t>::max();

struct TheoryFloor {  // LocMoE, theorem 1
  double effective_dim = 0;
  double delta = 0;
};

// Places of an expert and of a device in one domain (R9 to R11). Absent: off.
struct CapacityPolicy {
  std::optional<int64_t> capacity;  // of every expert, whatever the batch; the factors do not apply
  std::optional<double> factor;     // gamma, of the mean load
  std::optional<double> zeta;       // standard deviations of a balanced load added to the mean
  int64_t tile = 1;                 // the ceiling is a multiple of this
  int64_t min_tokens = 0;           // fewer tokens in the domain: no ceiling
  double min_mean_load = 4;         // a smaller mean load: no ceiling
  std::optional<double> device_factor;
  // Floors: what an expert may keep when its device is over its budget, the largest counts.
  std::optional<double> ecr_error;      // 1 - probability that expert choice finds its token
  std::optional<double> affinity_mass;  // share of the expert's affinity sum
  std::optional<TheoryFloor> theory;
  bool eager = false;       // the floor bounds, pressure or not; only below a finite ceiling
  bool rank_local = false;  // every rank counts for itself (R19)
};

struct RoutingPolicy {
  CapacityPolicy capacity;
  int64_t block_tokens = 0;  // > 0 for the block modes
  PairOrder order = PairOrder::kScore;
  PairTier tier = PairTier::kOff;
  int reroute = 0;             // experts behind the chosen ones that an evicted pair may try
  double reroute_ratio = 0.5;  // rho: the new gate value is at least this share of the old
  // R15: a token keeps one expert; refused with a shared expert. Causal blocks always do.
  bool coverage = true;
  bool renormalise_after_drop = false;  // R16
  float max_renormalisation = 2;        // r_max >= 1
  std::optional<double>
      expert_choice;  // shared tokens: experts choose, this many a token on average
};

// Of the model that a policy is for.
struct PolicyLimits {
  int num_experts = 0;
  bool has_shared_expert = false;
};

// INVALID_ARGUMENT names the setting, its value and what it may be.
absl::Status ValidatePolicy(const RoutingPolicy& policy, const PolicyLimits& model);

// Of threshold mode, at one layer: one affinity an expert. Not NaN, which would drop nothing;
// infinities may stand for "keep all" (-inf) and "drop all but the first" (inf).
absl::Status ValidateThresholds(std::span<const float> thresholds, int num_experts);

}  // namespace gatehouse
