// What Python's operators, subscripts and slices do to values, under jinja2's rules for what is
// missing. Each charges the interpreter for what it makes.
#pragma once

#include <string_view>

#include "engine/chat_template/interpreter.h"
#include "engine/chat_template/value.h"

namespace gatehouse::jinja {

absl::StatusOr<Value> Negate(const Value& value);
// "+", "-", "*", "/", "//", "%", "**".
absl::StatusOr<Value> Calculate(Interpreter& run, std::string_view sign, const Value& left,
                                const Value& right);
// One sign of a comparison: "==", "<", "in", "not in", ...
absl::StatusOr<bool> Compare(std::string_view sign, const Value& left, const Value& right);

// value.name: a method or attribute first, then an item. What is not there is undefined; to ask an
// undefined value is INVALID_ARGUMENT.
absl::StatusOr<Value> GetAttribute(const Value& value, std::string_view name);
// value[key]: an item first, then a method.
absl::StatusOr<Value> GetItem(const Value& value, const Value& key);
struct SliceBounds {
  Value begin = Value::MakeNone();
  Value end = Value::MakeNone();
  Value step = Value::MakeNone();
};
absl::StatusOr<Value> GetSlice(Interpreter& run, const Value& value, const SliceBounds& bounds);

}  // namespace gatehouse::jinja
