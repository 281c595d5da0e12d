#include "engine/moe/route_plan.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

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

// Slots and pairs say the same of every row.
absl::Status CheckSlots(const RoutePlan& plan) {
  const size_t num_slots = static_cast<size_t>(plan.num_rows) * plan.top_k;
  if (plan.slot_experts.size() != num_slots || plan.slot_weights.size() != num_slots) {
    return Broken("%d experts and %d weights for %d slots", plan.slot_experts.size(),
                  plan.slot_weights.size(), num_slots);
  }
  for (int row = 0; row < plan.num_rows; ++row) {
    int num_used = 0;
    for (int slot = 0; slot < plan.top_k; ++slot) {
      const int32_t expert = plan.slot_experts[int64_t{row} * plan.top_k + slot];
      if (expert < 0) continue;
      ++num_used;
      if (expert >= plan.num_experts) return Broken("row %d has expert %d", row, expert);
      const auto rows = std::span(plan.row_ids)
                            .subspan(plan.expert_begin[expert],
                                     plan.expert_begin[expert + 1] - plan.expert_begin[expert]);
      if (!std::binary_search(rows.begin(), rows.end(), row)) {
        return Broken("row %d has expert %d in a slot and no pair there", row, expert);
      }
    }
    if (const int sums = plan.token_begin[row + 1] - plan.token_begin[row]; sums != num_used) {
      return Broken("row %d sums %d pairs of %d slots", row, sums, num_used);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckFates(const RoutePlan& plan) {
  if (plan.exact()) return absl::OkStatus();
  const auto num_rows = static_cast<size_t>(plan.num_rows);
  if (plan.slot_fates.size() != plan.slot_experts.size() || plan.row_mass_kept.size() != num_rows ||
      plan.row_marks.size() != num_rows) {
    return Broken("%d fates, %d masses and %d marks for %d rows", plan.slot_fates.size(),
                  plan.row_mass_kept.size(), plan.row_marks.size(), num_rows);
  }
  for (size_t i = 0; i < plan.slot_fates.size(); ++i) {
    const SlotFate fate = plan.slot_fates[i];
    const bool computed = fate == SlotFate::kKept || fate == SlotFate::kRerouted;
    if (computed != (plan.slot_experts[i] >= 0)) {
      return Broken("slot %d is %s and has expert %d", i, computed ? "computed" : "not computed",
                    plan.slot_experts[i]);
    }
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
  if (row_mass.size() != static_cast<size_t>(num_rows)) {
    return Broken("%d masses for %d rows", row_mass.size(), num_rows);
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
  GATEHOUSE_RETURN_IF_ERROR(CheckSlots(*this));
  return CheckFates(*this);
}

RouteReport ReportOf(const RoutePlan& plan, int begin_row, int end_row) {
  RouteReport report;
  for (int row = begin_row; row < end_row; ++row) {
    report.gate_mass += plan.row_mass[row];
    if (plan.exact()) {
      const int num_pairs = plan.token_begin[row + 1] - plan.token_begin[row];
      report.assignments += num_pairs;
      report.kept += num_pairs;
      report.gate_mass_kept += plan.row_mass[row];
      continue;
    }
    report.gate_mass_kept += plan.row_mass_kept[row];
    report.covered += plan.row_marks[row] == RowMark::kCovered ? 1 : 0;
    report.overrides += plan.row_marks[row] == RowMark::kOverride ? 1 : 0;
    report.bare += plan.row_marks[row] == RowMark::kBare ? 1 : 0;
    for (int slot = 0; slot < plan.top_k; ++slot) {
      const SlotFate fate = plan.slot_fates[int64_t{row} * plan.top_k + slot];
      report.assignments += fate == SlotFate::kEmpty ? 0 : 1;
      report.kept += fate == SlotFate::kKept ? 1 : 0;
      report.rerouted += fate == SlotFate::kRerouted ? 1 : 0;
      report.dropped += fate == SlotFate::kDropped ? 1 : 0;
    }
  }
  return report;
}

ModeReports ReportByMode(const RoutePlan& plan, std::span<const RoutedToken> tokens) {
  ModeReports reports;
  if (plan.exact() || tokens.empty()) {
    reports[static_cast<int>(TokenMode::kExact)] = ReportOf(plan, 0, plan.num_rows);
    return reports;
  }
  for (int row = 0; row < plan.num_rows; ++row) {
    reports[static_cast<int>(tokens[row].mode)] += ReportOf(plan, row, row + 1);
  }
  return reports;
}

}  // namespace gatehouse
