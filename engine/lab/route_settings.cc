#include "engine/lab/route_settings.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/moe/routing_policy.h"

namespace gatehouse {

const RouteWord* RouteSettingsReader::Find(std::string_view name) const {
  const auto it = settings_.find(name);
  return it == settings_.end() ? nullptr : &it->second;
}

void RouteSettingsReader::Refuse(std::string_view name, std::string_view expected) {
  const RouteWord* word = Find(name);
  if (!status_.ok() || word == nullptr) return;
  status_ = absl::OutOfRangeError(absl::StrFormat("line %d: %s: got '%s', expected %s", word->line,
                                                  name, word->text, expected));
}

double RouteSettingsReader::ToNumber(std::string_view name, std::string_view word) {
  double value = 0;
  if (!ParseRouteNumber(word, value)) Refuse(name, "a number");
  return value;
}

int64_t RouteSettingsReader::ToCount(std::string_view name, double value) {
  if (value == std::numeric_limits<double>::infinity()) return kNoBound;
  if (!(std::abs(value) <= 9e15) || std::floor(value) != value) {
    Refuse(name, "a whole number");
    return 0;
  }
  return static_cast<int64_t>(value);
}

std::optional<double> RouteSettingsReader::Number(std::string_view name) {
  const RouteWord* word = Find(name);
  if (word == nullptr || word->text == "off") return std::nullopt;
  return ToNumber(name, word->text);
}

std::optional<int64_t> RouteSettingsReader::Count(std::string_view name) {
  const std::optional<double> value = Number(name);
  if (!value.has_value()) return std::nullopt;
  return ToCount(name, *value);
}

bool RouteSettingsReader::Switch(std::string_view name, bool fallback) {
  return ChoiceIndex(name, {"off", "on"}, fallback ? 1 : 0) == 1;
}

std::vector<std::string_view> RouteSettingsReader::Words(std::string_view name) {
  const RouteWord* word = Find(name);
  std::vector<std::string_view> words;
  if (word == nullptr || word->text == "off") return words;
  std::string_view rest = word->text;
  while (true) {
    const size_t comma = std::min(rest.find(','), rest.size());
    words.push_back(rest.substr(0, comma));
    if (comma == rest.size()) return words;
    rest.remove_prefix(comma + 1);
  }
}

std::vector<double> RouteSettingsReader::Reals(std::string_view name) {
  std::vector<double> reals;
  for (const std::string_view word : Words(name)) reals.push_back(ToNumber(name, word));
  return reals;
}

std::vector<float> RouteSettingsReader::Numbers(std::string_view name) {
  std::vector<float> numbers;
  for (const double value : Reals(name)) {
    if (std::isfinite(value) && std::abs(value) > std::numeric_limits<float>::max()) {
      Refuse(name, "numbers in fp32");
      return {};
    }
    numbers.push_back(static_cast<float>(value));
  }
  return numbers;
}

std::vector<int64_t> RouteSettingsReader::Counts(std::string_view name) {
  std::vector<int64_t> counts;
  for (const std::string_view word : Words(name)) {
    counts.push_back(ToCount(name, ToNumber(name, word)));
  }
  return counts;
}

int RouteSettingsReader::ChoiceIndex(std::string_view name,
                                     const std::vector<std::string_view>& choices, int fallback) {
  const RouteWord* word = Find(name);
  if (word == nullptr) return fallback;
  const auto it = std::find(choices.begin(), choices.end(), word->text);
  if (it == choices.end()) {
    Refuse(name, absl::StrJoin(choices, ", ", [](std::string* out, std::string_view choice) {
             out->append(choice);
           }));
    return fallback;
  }
  return static_cast<int>(it - choices.begin());
}

}  // namespace gatehouse
