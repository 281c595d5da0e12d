#include "engine/moe/route_plan.h"

#include "absl/strings/str_format.h"

namespace gatehouse {
namespace {

template <typename... Args>
absl::Status Broken(const absl::FormatSpec<Args...>& format, const Args&... args) {
  return absl::InternalError("route plan: " + absl::StrFormat(format, args...));
}

// `begin` has num_groups + 1 entries, starts at 0, never falls and ends at num_pairs.
absl::Status CheckOffsets(const char* name, const std::vector<int32_t>& begin, int num_groups,
                          int num_pairs) {
  if (begin.size() != static_cast<size_t>(num_groups) + 1) {
    return Broken("%s has %d entries, expected %d", name, begin.size(), num_groups + 1);
  }
  if (begin.front() != 0 || begin.back() != num_pairs) {
    return Broken("%s runs from %d to %d, expected 0 to %d", name, begin.front(), begin.back(),
                  num_pairs);
  }
  for (int g = 0; g < num_groups; ++g) {
    if (begin[g] > begin[g + 1]) return Broken("%s falls after entry %d", name, g);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RoutePlan::Validate() const {
  const int pairs = num_pairs();
  if (absl::Status s = CheckOffsets("expert_begin", expert_begin, num_experts, pairs); !s.ok())
    return s;
  if (absl::Status s = CheckOffsets("token_begin", token_begin, num_rows, pairs); !s.ok()) return s;
  if (assignment_ids.size() != row_ids.size() || weights.size() != row_ids.size()) {
    return Broken("%d assignments and %d weights for %d pairs", assignment_ids.size(),
                  weights.size(), pairs);
  }
  for (int e = 0; e < num_experts; ++e) {
    for (int pair = expert_begin[e]; pair < expert_begin[e + 1]; ++pair) {
      if (row_ids[pair] < 0 || row_ids[pair] >= num_rows) {
        return Broken("expert %d has row %d of %d", e, row_ids[pair], num_rows);
      }
      if (pair > expert_begin[e] && row_ids[pair] <= row_ids[pair - 1]) {
        return Broken("expert %d has row %d after row %d", e, row_ids[pair], row_ids[pair - 1]);
      }
    }
  }
  // Ascending pairs within a row are ascending experts, and with pairs.size() entries in all each
  // pair stands once.
  for (int row = 0; row < num_rows; ++row) {
    for (int at = token_begin[row]; at < token_begin[row + 1]; ++at) {
      const int pair = assignment_ids[at];
      if (pair < 0 || pair >= pairs || row_ids[pair] != row) {
        return Broken("row %d sums pair %d, which is not its own", row, pair);
      }
      if (at > token_begin[row] && pair <= assignment_ids[at - 1]) {
        return Broken("row %d sums pair %d after pair %d", row, pair, assignment_ids[at - 1]);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace gatehouse
