#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/lab/route_case.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

using Items = std::vector<std::string>;

// How a label's items are compared.
enum class Comparison {
  kSet,
  kOrdered,
  kCounts,  // one number may stand for all
  kReals,   // within 1e-5 relative plus 1e-7, behind an equal "name="
};

struct Label {
  Items items;
  Comparison comparison = Comparison::kSet;
};

std::string CountText(int64_t count) {
  return count == kNoBound ? "off" : absl::StrFormat("%d", count);
}

Items CountItems(const std::vector<int64_t>& counts) {
  Items items;
  for (const int64_t count : counts) items.push_back(CountText(count));
  return items;
}

template <typename Text>
Items ItemsOfPairs(const RouteDecision& decision, const std::vector<int32_t>& ids,
                   const Text& text) {
  Items items;
  for (const int32_t id : ids) items.push_back(text(decision.pairs[id]));
  return items;
}

template <typename Wanted, typename Text>
Items ItemsWhere(const RouteDecision& decision, const Wanted& wanted, const Text& text) {
  Items items;
  for (const PairDecision& pair : decision.pairs) {
    if (wanted(pair)) items.push_back(text(pair));
  }
  return items;
}

Items RowItems(const std::vector<int32_t>& rows) {
  Items items;
  for (const int32_t row : rows) items.push_back(absl::StrFormat("%d", row));
  return items;
}

std::string ChosenText(const PairDecision& pair) {
  return absl::StrFormat("(%d,e%d)", pair.row, pair.chosen_expert);
}
std::string PlacedText(const PairDecision& pair) {
  return absl::StrFormat("(%d,e%d)", pair.row, pair.expert);
}
std::string MovedText(const PairDecision& pair) {
  return absl::StrFormat("(%d,e%d>e%d)", pair.row, pair.chosen_expert, pair.expert);
}

std::vector<int64_t> ExpertLoads(const RouteOutcome& outcome) {
  std::vector<int64_t> loads(outcome.num_experts);
  for (const PairDecision& pair : outcome.decision.pairs) {
    if (pair.fate != PairFate::kDropped) ++loads[pair.expert];
  }
  return loads;
}

std::vector<int64_t> DeviceLoads(const RouteOutcome& outcome) {
  std::vector<int64_t> loads(outcome.num_devices);
  for (const PairDecision& pair : outcome.decision.pairs) {
    if (pair.device >= 0) ++loads[pair.device];
  }
  return loads;
}

std::vector<int64_t> DevicePressure(const RouteOutcome& outcome) {
  std::vector<int64_t> pressure(outcome.num_devices);
  for (const DomainBounds& domain : outcome.decision.bounds) {
    for (int d = 0; d < outcome.num_devices; ++d) pressure[d] += domain.device_pressure[d];
  }
  return pressure;
}

Items PressedExperts(const RouteOutcome& outcome) {
  Items items;
  for (int e = 0; e < outcome.num_experts; ++e) {
    const auto& bounds = outcome.decision.bounds;
    if (std::any_of(bounds.begin(), bounds.end(),
                    [e](const DomainBounds& d) { return d.expert_pressure[e] != 0; })) {
      items.push_back(absl::StrFormat("e%d", e));
    }
  }
  return items;
}

// A number behind a letter or in brackets; the whole text.
std::optional<int> ParseIndex(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

// What stands for the first domain where there is none: exact and threshold tokens have no bound.
DomainBounds NoBounds(const RouteOutcome& outcome) {
  return {.floors = std::vector<int64_t>(outcome.num_experts),
          .expert_places = std::vector<int64_t>(outcome.num_experts, kNoBound),
          .device_budgets = std::vector<int64_t>(outcome.num_devices, kNoBound)};
}

// C, floor or B, of the first domain (of the first block, if there are only blocks) or of
// [domain,rank].
std::optional<Label> BoundsLabel(const RouteOutcome& outcome, std::string_view label) {
  const size_t bracket = std::min(label.find('['), label.size());
  const std::string_view name = label.substr(0, bracket);
  if (name != "C" && name != "floor" && name != "B") return std::nullopt;
  const DomainBounds none = NoBounds(outcome);
  const std::vector<DomainBounds>& all = outcome.decision.bounds;
  const std::vector<DomainBounds>& blocks = outcome.decision.block_bounds;
  const DomainBounds* domain = !all.empty() ? &all[0] : !blocks.empty() ? &blocks[0] : &none;
  if (bracket < label.size()) {
    const size_t comma = label.find(',', bracket);
    if (comma == std::string_view::npos || label.back() != ']') return std::nullopt;
    const auto d = ParseIndex(label.substr(bracket + 1, comma - bracket - 1));
    const auto r = ParseIndex(label.substr(comma + 1, label.size() - comma - 2));
    if (!d.has_value() || !r.has_value()) return std::nullopt;
    const auto found = std::find_if(all.begin(), all.end(), [&](const DomainBounds& bounds) {
      return bounds.domain == *d && bounds.rank == *r;
    });
    if (found == all.end()) return Label{{}, Comparison::kCounts};
    domain = &*found;
  }
  const auto& counts = name == "C"       ? domain->expert_places
                       : name == "floor" ? domain->floors
                                         : domain->device_budgets;
  return Label{CountItems(counts), Comparison::kCounts};
}

// eI, dD and wT.
std::optional<Label> IndexedLabel(const RouteOutcome& outcome, std::string_view label) {
  const std::optional<int> index = ParseIndex(label.substr(std::min<size_t>(1, label.size())));
  if (!index.has_value()) return std::nullopt;
  const RouteDecision& decision = outcome.decision;
  const auto row_text = [](const PairDecision& p) { return absl::StrFormat("%d", p.row); };
  switch (label[0]) {
    case 'e':
      if (*index >= outcome.num_experts) return std::nullopt;
      return Label{ItemsWhere(
          decision,
          [&](const PairDecision& p) { return p.fate == PairFate::kKept && p.expert == *index; },
          row_text)};
    case 'd':
      if (*index >= outcome.num_devices) return std::nullopt;
      return Label{ItemsWhere(
          decision, [&](const PairDecision& p) { return p.device == *index; }, PlacedText)};
    case 'w':
      if (*index + 1 >= static_cast<int>(decision.pair_begin.size())) return std::nullopt;
      return Label{ItemsWhere(
                       decision,
                       [&](const PairDecision& p) {
                         return p.row == *index && p.fate != PairFate::kDropped;
                       },
                       [](const PairDecision& p) {
                         return absl::StrFormat("e%d=%.9g", p.expert, p.weight);
                       }),
                   Comparison::kReals};
    default:
      return std::nullopt;
  }
}

std::optional<Label> FindLabel(const RouteOutcome& outcome, std::string_view label) {
  const RouteDecision& decision = outcome.decision;
  const auto fate_is = [](PairFate fate) {
    return [fate](const PairDecision& p) { return p.fate == fate; };
  };
  if (label == "rerouted") {
    return Label{ItemsWhere(decision, fate_is(PairFate::kRerouted), MovedText)};
  }
  if (label == "dropped") {
    return Label{ItemsWhere(decision, fate_is(PairFate::kDropped), ChosenText)};
  }
  if (label == "evicted") {
    return Label{ItemsOfPairs(decision, decision.evicted, ChosenText), Comparison::kOrdered};
  }
  if (label == "covered") {
    return Label{ItemsOfPairs(decision, decision.covered, ChosenText), Comparison::kOrdered};
  }
  if (label == "overrides") {
    return Label{ItemsOfPairs(decision, decision.overrides, ChosenText), Comparison::kOrdered};
  }
  if (label == "bare") return Label{RowItems(decision.bare_rows)};
  if (label == "failed") return Label{RowItems(decision.failed_rows)};
  if (label == "load") return Label{CountItems(ExpertLoads(outcome)), Comparison::kCounts};
  if (label == "device_load") {
    return Label{CountItems(DeviceLoads(outcome)), Comparison::kCounts};
  }
  if (label == "device_pressure") {
    return Label{CountItems(DevicePressure(outcome)), Comparison::kCounts};
  }
  if (label == "pressure") return Label{PressedExperts(outcome)};
  if (label == "mass") {
    const RouteReport report = Summarise(decision);
    return Label{
        {absl::StrFormat("%.9g", report.gate_mass_kept), absl::StrFormat("%.9g", report.gate_mass)},
        Comparison::kReals};
  }
  if (std::optional<Label> bounds = BoundsLabel(outcome, label)) return bounds;
  return IndexedLabel(outcome, label);
}

bool SameReal(std::string_view got, std::string_view expected) {
  const size_t got_at = got.find('=') + 1, expected_at = expected.find('=') + 1;  // npos + 1 is 0
  if (got.substr(0, got_at) != expected.substr(0, expected_at)) return false;
  double a = 0, b = 0;
  return ParseRouteNumber(got.substr(got_at), a) &&
         ParseRouteNumber(expected.substr(expected_at), b) &&
         std::abs(a - b) <= 1e-5 * std::abs(b) + 1e-7;
}

bool Matches(const Label& got, Items expected) {
  switch (got.comparison) {
    case Comparison::kSet:
      return std::set(got.items.begin(), got.items.end()) ==
             std::set(expected.begin(), expected.end());
    case Comparison::kOrdered:
      return got.items == expected;
    case Comparison::kCounts: {
      for (std::string& item : expected) item = item == "inf" ? "off" : item;
      if (expected.size() == 1) expected.resize(std::max<size_t>(got.items.size(), 1), expected[0]);
      return got.items == expected;
    }
    case Comparison::kReals:
      return std::equal(got.items.begin(), got.items.end(), expected.begin(), expected.end(),
                        SameReal);
  }
  return false;
}

std::string JoinItems(const Items& items) {
  return items.empty() ? "-" : absl::StrJoin(items, " ");
}

}  // namespace

std::vector<RouteExpectation> DescribeOutcome(const RouteOutcome& outcome) {
  std::vector<std::string> labels;
  labels.reserve(outcome.num_experts + outcome.num_devices + outcome.decision.pair_begin.size());
  for (int e = 0; e < outcome.num_experts; ++e) labels.push_back(absl::StrFormat("e%d", e));
  for (int d = 0; d < outcome.num_devices; ++d) labels.push_back(absl::StrFormat("d%d", d));
  labels.insert(labels.end(),
                {"evicted", "rerouted", "dropped", "covered", "overrides", "bare", "failed"});
  for (const DomainBounds& domain : outcome.decision.bounds) {
    for (const char* name : {"C", "floor", "B"}) {
      labels.push_back(absl::StrFormat("%s[%d,%d]", name, domain.domain, domain.rank));
    }
  }
  labels.insert(labels.end(), {"load", "device_load", "pressure", "device_pressure"});
  for (size_t row = 0; row + 1 < outcome.decision.pair_begin.size(); ++row) {
    labels.push_back(absl::StrFormat("w%d", row));
  }
  labels.push_back("mass");
  std::vector<RouteExpectation> description;
  description.reserve(labels.size());
  for (std::string& label : labels) {
    Items items = FindLabel(outcome, label)->items;
    description.push_back({.label = std::move(label), .items = std::move(items)});
  }
  return description;
}

absl::StatusOr<std::vector<std::string>> CompareWithExpectations(const RouteCase& route_case,
                                                                 const RouteOutcome& outcome) {
  std::vector<std::string> differences;
  for (const RouteExpectation& expectation : route_case.expectations) {
    const std::optional<Label> got = FindLabel(outcome, expectation.label);
    if (!got.has_value()) {
      return absl::OutOfRangeError(absl::StrFormat("line %d: there is nothing to expect of '%s'",
                                                   expectation.line, expectation.label));
    }
    const bool empty = expectation.items == Items{"-"};
    if (Matches(*got, empty ? Items{} : expectation.items)) continue;
    differences.push_back(absl::StrFormat("line %d: %s: got %s, expected %s", expectation.line,
                                          expectation.label, JoinItems(got->items),
                                          JoinItems(expectation.items)));
  }
  return differences;
}

}  // namespace gatehouse
