#include "server/field_check.h"

#include <cmath>

#include "absl/strings/str_format.h"

namespace gatehouse {

absl::Status InvalidField(const std::string& path, const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrFormat("%s: %s", path, problem));
}

absl::Status CheckField(const std::string& path, double value, const NumberRange& range) {
  // Written so that NaN lies in no range.
  const bool above = range.low_is_open ? value > range.low : value >= range.low;
  if (above && value <= range.high && std::isfinite(value)) return absl::OkStatus();
  const std::string low =
      absl::StrFormat("%s %.15g", range.low_is_open ? "above" : "at least", range.low);
  const std::string high =
      std::isfinite(range.high) ? absl::StrFormat(", at most %.15g", range.high) : "";
  return InvalidField(path, absl::StrFormat("got %.15g, expected a number %s%s", value, low, high));
}

}  // namespace gatehouse
