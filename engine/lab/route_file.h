// Route case files (*.route, docs/routing.md): rows with gate values, the settings that bound their
// routing, and what must come out. Read here, line by line, without knowing what a setting means.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace gatehouse {

// A word of a setting or attribute and where it stands.
struct RouteWord {
  std::string text;
  int line = 0;
};
using RouteSettings = std::map<std::string, RouteWord, std::less<>>;

struct RouteFileToken {
  std::vector<float> numbers;  // empty: padding without numbers
  RouteSettings attributes;
  int line = 0;
};

struct RouteExpectation {
  std::string label;  // without its colon
  std::vector<std::string> items;
  int line = 0;
};

struct RouteCase {
  std::string name;
  int line = 0;
  RouteSettings settings;
  std::vector<std::vector<float>> gate_rows;
  std::vector<RouteFileToken> tokens;
  std::vector<RouteExpectation> expectations;
  bool expects_invalid = false;
};

// INVALID_ARGUMENT "<file>:<line>: ..." for the first line that is not of the format or names what
// there is not. `file` opens the messages.
absl::StatusOr<std::vector<RouteCase>> ParseRouteFile(std::string_view text,
                                                      const std::string& file);

// A number as the format writes it: decimal, inf, -inf or nan. False if `word` is none.
bool ParseRouteNumber(std::string_view word, double& value);

}  // namespace gatehouse
