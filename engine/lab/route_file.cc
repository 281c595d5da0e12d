#include "engine/lab/route_file.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <span>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

constexpr std::string_view kSettings[] = {
    "experts",    "top_k",     "devices",  "ranks",         "mode",        "place",
    "input",      "score",     "select",   "affinity",      "renorm",      "scale",
    "bias",       "gate_bias", "groups",   "topk_group",    "group_score", "null",
    "jitter",     "gate_rows", "capacity", "gamma",         "zeta",        "tile",
    "t_min",      "nbar_min",  "hw",       "gamma_dev",     "throughput",  "rows",
    "eps",        "tau",       "d_eff",    "delta",         "eager",       "rank_local",
    "thresholds", "block",     "policy",   "choice_factor", "order",       "tier",
    "reroute",    "rho",       "coverage", "shared_expert", "after_drop",  "r_max"};
constexpr std::string_view kAttributes[] = {"key",  "position", "request", "domain", "home",
                                            "rank", "mode",     "pad",     "cosine"};

bool Contains(std::span<const std::string_view> words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

std::vector<std::string_view> SplitLine(std::string_view line) {
  line = line.substr(0, line.find('#'));
  std::vector<std::string_view> words;
  constexpr std::string_view kBlanks = " \t\r\f\v";
  size_t at = line.find_first_not_of(kBlanks);
  while (at != std::string_view::npos) {
    const size_t end = std::min(line.find_first_of(kBlanks, at), line.size());
    words.push_back(line.substr(at, end - at));
    at = line.find_first_not_of(kBlanks, end);
  }
  return words;
}

// "e0: 1", "e0:1" and "e0 : 1" are the same: e0, a colon, 1.
std::vector<std::string_view> SplitAtColons(std::span<const std::string_view> words) {
  std::vector<std::string_view> parts;
  for (std::string_view word : words) {
    while (!word.empty()) {
      const size_t end = word[0] == ':' ? 1 : std::min(word.find(':'), word.size());
      parts.push_back(word.substr(0, end));
      word.remove_prefix(end);
    }
  }
  return parts;
}

class RouteFileParser {
 public:
  explicit RouteFileParser(const std::string& file) : file_(file) {}

  absl::Status Line(std::span<const std::string_view> words, int line) {
    line_ = line;
    if (words.empty()) return absl::OkStatus();
    if (words[0] == "case") return Case(words.subspan(1));
    if (cases_.empty()) cases_.push_back({.name = file_, .line = line});  // a file without "case"
    if (words[0] == "gate_row") return GateRow(words.subspan(1));
    if (words[0] == "token") return Token(words.subspan(1));
    if (words[0] == "expect") return Expect(words.subspan(1));
    return Pairs(words, kSettings, "setting", cases_.back().settings);
  }

  std::vector<RouteCase> TakeCases() { return std::move(cases_); }

 private:
  absl::Status Error(std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrFormat("%s:%d: %s", file_, line_, what));
  }

  absl::Status Case(std::span<const std::string_view> words) {
    if (words.empty() || words.size() == 2 || words.size() > 3 ||
        (words.size() == 3 && words[1] != "like")) {
      return Error("expected: case NAME [like NAME]");
    }
    const auto find = [&](std::string_view name) {
      return std::find_if(cases_.begin(), cases_.end(),
                          [&](const RouteCase& c) { return c.name == name; });
    };
    if (!cases_.empty() && !named_) return Error("a case after lines that belong to none");
    if (find(words[0]) != cases_.end()) {
      return Error(absl::StrFormat("case %s stands here twice", words[0]));
    }
    RouteCase next;
    if (words.size() == 3) {
      const auto model = find(words[2]);
      if (model == cases_.end()) {
        return Error(absl::StrFormat("like %s: no case of that name above", words[2]));
      }
      next = {.settings = model->settings, .gate_rows = model->gate_rows, .tokens = model->tokens};
    }
    next.name = words[0];
    next.line = line_;
    named_ = true;
    cases_.push_back(std::move(next));
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<float>> Numbers(std::span<const std::string_view> words) const {
    std::vector<float> numbers;
    for (const std::string_view word : words) {
      double value = 0;
      constexpr double kLargest = std::numeric_limits<float>::max();
      if (!ParseRouteNumber(word, value) || (std::isfinite(value) && std::abs(value) > kLargest)) {
        return Error(absl::StrFormat("got '%s', expected a number in fp32", word));
      }
      numbers.push_back(static_cast<float>(value));
    }
    if (numbers.empty()) return Error("expected numbers");
    return numbers;
  }

  absl::Status GateRow(std::span<const std::string_view> words) {
    GATEHOUSE_ASSIGN_OR_RETURN(std::vector<float> row, Numbers(words));
    cases_.back().gate_rows.push_back(std::move(row));
    return absl::OkStatus();
  }

  absl::Status Token(std::span<const std::string_view> words) {
    RouteCase& current = cases_.back();
    const std::string next = absl::StrFormat("%d", current.tokens.size());
    if (words.empty() || words[0] != next) {
      return Error(
          absl::StrFormat("token: got '%s', expected %s", words.empty() ? "" : words[0], next));
    }
    const auto slash = std::find(words.begin(), words.end(), "/");
    RouteFileToken token{.line = line_};
    const auto numbers = words.subspan(1, slash - words.begin() - 1);
    if (numbers.size() != 1 || numbers[0] != "-") {
      GATEHOUSE_ASSIGN_OR_RETURN(token.numbers, Numbers(numbers));
    }
    if (slash != words.end()) {
      GATEHOUSE_RETURN_IF_ERROR(Pairs(words.subspan(slash - words.begin() + 1), kAttributes,
                                      "attribute", token.attributes));
    }
    current.tokens.push_back(std::move(token));
    return absl::OkStatus();
  }

  absl::Status Expect(std::span<const std::string_view> words) {
    RouteCase& current = cases_.back();
    if (words.size() == 1 && words[0] == "invalid") {
      current.expects_invalid = true;
      return absl::OkStatus();
    }
    const std::vector<std::string_view> parts = SplitAtColons(words);
    const size_t num_before = current.expectations.size();
    for (size_t i = 0; i < parts.size(); ++i) {
      if (i + 1 < parts.size() && parts[i + 1] == ":") {
        current.expectations.push_back({.label = std::string(parts[i]), .line = line_});
        ++i;
      } else if (current.expectations.size() > num_before && parts[i] != ":") {
        current.expectations.back().items.emplace_back(parts[i]);
      } else {
        return Error("expect: expected LABEL: items");
      }
    }
    if (current.expectations.size() == num_before) return Error("expect: expected LABEL: items");
    return absl::OkStatus();
  }

  absl::Status Pairs(std::span<const std::string_view> words,
                     std::span<const std::string_view> names, std::string_view kind,
                     RouteSettings& settings) const {
    for (size_t i = 0; i < words.size(); i += 2) {
      if (!Contains(names, words[i])) {
        return Error(absl::StrFormat("there is no %s '%s'", kind, words[i]));
      }
      if (i + 1 == words.size()) return Error(absl::StrFormat("%s has no value", words[i]));
      settings.insert_or_assign(std::string(words[i]), RouteWord{std::string(words[i + 1]), line_});
    }
    return absl::OkStatus();
  }

  const std::string file_;
  int line_ = 0;
  bool named_ = false;  // a "case" line was read
  std::vector<RouteCase> cases_;
};

}  // namespace

bool ParseRouteNumber(std::string_view word, double& value) {
  if (word == "nan") value = std::numeric_limits<double>::quiet_NaN();
  if (word == "inf") value = std::numeric_limits<double>::infinity();
  if (word == "-inf") value = -std::numeric_limits<double>::infinity();
  if (word == "nan" || word == "inf" || word == "-inf") return true;
  if (word.starts_with('+')) word.remove_prefix(1);
  const char* end = word.data() + word.size();
  const auto [stop, error] = std::from_chars(word.data(), end, value);
  return error == std::errc() && stop == end && std::isfinite(value);
}

absl::StatusOr<std::vector<RouteCase>> ParseRouteFile(std::string_view text,
                                                      const std::string& file) {
  RouteFileParser parser(file);
  for (int line = 1; !text.empty(); ++line) {
    const size_t end = std::min(text.find('\n'), text.size());
    GATEHOUSE_RETURN_IF_ERROR(parser.Line(SplitLine(text.substr(0, end)), line));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parser.TakeCases();
}

}  // namespace gatehouse
