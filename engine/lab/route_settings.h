// Typed reading of the words of a route file. The first fault sticks: OUT_OF_RANGE "line N: NAME:
// got
// ..., expected ...".
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "engine/lab/route_file.h"

namespace gatehouse {

class RouteSettingsReader {
 public:
  explicit RouteSettingsReader(const RouteSettings& settings) : settings_(settings) {}

  bool Has(std::string_view name) const { return settings_.contains(name); }
  // "off" is absent.
  std::optional<double> Number(std::string_view name);
  std::optional<int64_t> Count(std::string_view name);  // inf: kNoBound
  int64_t Count(std::string_view name, int64_t fallback) { return Count(name).value_or(fallback); }
  bool Switch(std::string_view name, bool fallback);
  std::vector<double> Reals(std::string_view name);
  std::vector<float> Numbers(std::string_view name);  // fp32
  std::vector<int64_t> Counts(std::string_view name);
  std::vector<std::string_view> Words(std::string_view name);  // separated by commas
  // The index of the word among `choices`.
  template <typename T>
  T Choice(std::string_view name, const std::vector<std::string_view>& choices, T fallback) {
    return static_cast<T>(ChoiceIndex(name, choices, static_cast<int>(fallback)));
  }
  void Refuse(std::string_view name, std::string_view expected);

  const absl::Status& status() const { return status_; }

 private:
  int ChoiceIndex(std::string_view name, const std::vector<std::string_view>& choices,
                  int fallback);
  const RouteWord* Find(std::string_view name) const;
  double ToNumber(std::string_view name, std::string_view word);
  int64_t ToCount(std::string_view name, double value);

  const RouteSettings& settings_;
  absl::Status status_;
};

}  // namespace gatehouse
