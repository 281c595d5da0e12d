// Errors about one field of a message, in one shape: "<field path>: got <value>, expected <what>".
#pragma once

#include <limits>
#include <string>

#include "absl/status/status.h"

namespace gatehouse {

// INVALID_ARGUMENT "<path>: <problem>".
absl::Status InvalidField(const std::string& path, const std::string& problem);

// Ends of a range of finite numbers.
struct NumberRange {
  double low = 0;
  double high = std::numeric_limits<double>::infinity();
  bool low_is_open = false;
};

// INVALID_ARGUMENT with both numbers unless `value` is finite and in `range`.
absl::Status CheckField(const std::string& path, double value, const NumberRange& range);

}  // namespace gatehouse
