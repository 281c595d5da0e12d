// The routing decision of one MoE layer and step, as data: who computes what, with which weight.
// Decided once, then carried out by the dispatcher; the report is counted from it.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "engine/moe/route_decision.h"
#include "engine/moe/routed_token.h"
#include "kernels/backend.h"

namespace gatehouse {

// A pair is (token row, chosen expert). Arrays below with one entry a pair are in the order of the
// experts: expert e owns [expert_begin[e], expert_begin[e + 1]), its rows ascending.
// What became of the pair in a slot: computed by the expert chosen, by another, by none. Empty: no
// pair, as the row failed, is padding or chose fewer experts than others.
enum class SlotFate : uint8_t { kEmpty, kKept, kRerouted, kDropped };

// What R15 did for a row that had lost all its pairs.
enum class RowMark : uint8_t { kNone, kCovered, kOverride, kBare };

struct RoutePlan {
  int num_rows = 0;
  int num_experts = 0;
  int top_k = 0;  // slots of a row
  // By expert: what ExpertFfn computes.
  std::vector<int32_t> row_ids;       // [num_pairs]
  std::vector<int32_t> expert_begin;  // [num_experts + 1]
  // By token: what Combine sums, in ascending expert id (rule R17). Entry t's are [token_begin[t],
  // token_begin[t + 1]).
  std::vector<int32_t> token_begin;     // [num_rows + 1]
  std::vector<int32_t> assignment_ids;  // [num_pairs] index into row_ids
  std::vector<float> weights;           // [num_pairs] beside assignment_ids
  // By slot: what reports show. A slot whose pair was dropped holds -1 and weight 0, so does every
  // slot of a failed row.
  std::vector<int32_t>
      slot_experts;                 // [num_rows, top_k] that compute it: a rerouted pair's new one
  std::vector<float> slot_weights;  // [num_rows, top_k]
  std::vector<float> row_mass;      // [num_rows] sum of P of the pairs chosen (R20)
  // What the bounds did; empty where every row of the layer was routed exactly.
  std::vector<SlotFate> slot_fates;  // [num_rows, top_k]
  std::vector<float> row_mass_kept;  // [num_rows] sum of P of the pairs computed
  std::vector<RowMark> row_marks;    // [num_rows]
  BoundsOutcome bounds;              // lists empty where every row was routed exactly

  int num_pairs() const { return static_cast<int>(row_ids.size()); }
  ExpertGroups groups() const { return {row_ids, expert_begin}; }
  bool exact() const { return slot_fates.empty(); }

  // Checks every index and that each pair stands once in both orders: INTERNAL names the first
  // offender.
  absl::Status Validate() const;
};

// R20 of the rows [begin_row, end_row). Over layers and steps the mass is the ratio of the sums.
RouteReport ReportOf(const RoutePlan& plan, int begin_row, int end_row);

// The same of all rows by the mode of the token, kExact where the whole layer was routed exactly.
// `tokens` are the step's [num_rows]; empty: every row is exact.
using ModeReports = std::array<RouteReport, kNumTokenModes>;
ModeReports ReportByMode(const RoutePlan& plan, std::span<const RoutedToken> tokens);

}  // namespace gatehouse
