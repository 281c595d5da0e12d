// Python's two ways to fill in a text: "%s" % x and "{}".format(x).
#pragma once

#include "engine/chat_template/interpreter.h"

namespace gatehouse::jinja {

// Conversions s, r, d, i, x, e, f, g and %, with flags, width and precision, for a tuple, a
// dictionary (%(name)s) or one value.
absl::StatusOr<Value> FormatPercent(Interpreter& run, const Text& format, const Value& values);

// Fields {}, {0} and {name}, without attributes, conversions or format specifications, which
// templates do with filters.
absl::StatusOr<Value> FormatBraces(Interpreter& run, const Text& format,
                                   const Arguments& arguments);

}  // namespace gatehouse::jinja
