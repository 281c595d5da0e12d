// The routing decision of one MoE layer and step, as data: who computes what, with which weight.
// Decided once, then carried out by the dispatcher; the report is counted from it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"

namespace gatehouse {

// A pair is (token row, chosen expert). Arrays below with one entry a pair are in the order of the
// experts: expert e owns [expert_begin[e], expert_begin[e + 1]), its rows ascending.
struct RoutePlan {
  int num_rows = 0;
  int num_experts = 0;
  int top_k = 0;
  // By expert: what ExpertFfn computes.
  std::vector<int32_t> row_ids;       // [num_pairs]
  std::vector<int32_t> expert_begin;  // [num_experts + 1]
  // By token: what Combine sums, in ascending expert id (rule R17). Entry t's are [token_begin[t],
  // token_begin[t + 1]).
  std::vector<int32_t> token_begin;     // [num_rows + 1]
  std::vector<int32_t> assignment_ids;  // [num_pairs] index into row_ids
  std::vector<float> weights;           // [num_pairs] beside assignment_ids
  // By slot: what reports show. A failed row has weight 0 in every slot and takes part in no pair.
  std::vector<int32_t> slot_experts;  // [num_rows, top_k]
  std::vector<float> slot_weights;    // [num_rows, top_k]

  int num_pairs() const { return static_cast<int>(row_ids.size()); }
  ExpertGroups groups() const { return {row_ids, expert_begin}; }

  // Checks every index and that each pair stands once in both orders: INTERNAL names the first
  // offender.
  absl::Status Validate() const;
};

}  // namespace gatehouse
