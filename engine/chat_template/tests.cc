#include "engine/chat_template/tests.h"

#include <array>
#include <cmath>

#include "absl/strings/str_format.h"
#include "engine/chat_template/call.h"
#include "engine/chat_template/filters.h"
#include "engine/chat_template/operators.h"
#include "kernels/base/status_macros.h"

namespace gatehouse::jinja {
namespace {

using Predicate = absl::StatusOr<bool> (*)(const Value& value, const Bound& operand);

bool IsNumber(const Value& value) { return value.AsNumber().has_value(); }

absl::StatusOr<bool> HasRemainder(const Value& value, int64_t divisor, int64_t remainder) {
  if (const std::optional<int64_t> integer = value.AsInteger()) {
    if (divisor == 0) return absl::InvalidArgumentError("division by zero");
    if (divisor == -1) return remainder == 0;
    const int64_t rest = *integer % divisor;
    return (rest != 0 && (rest < 0) != (divisor < 0) ? rest + divisor : rest) == remainder;
  }
  if (value.AsNumber().has_value()) {
    const double rest = std::fmod(value.float_value(), static_cast<double>(divisor));
    return (rest < 0 ? rest + static_cast<double>(divisor) : rest) ==
           static_cast<double>(remainder);
  }
  return WrongType("%", value, "a number");
}

bool IsIterable(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
    case Value::Kind::kString:
    case Value::Kind::kSequence:
    case Value::Kind::kDict:
    case Value::Kind::kIterator:
    case Value::Kind::kLoop:
      return true;
    default:
      return false;
  }
}

bool IsSequence(const Value& value) {
  if (value.is_string() || value.is_dict()) return true;
  return value.sequence() != nullptr && value.sequence()->type <= Sequence::Type::kRange;
}

// `x is sameas false`: constants are one object each, all else is compared by value, which
// differs from Python for equal containers alone.
bool IsSame(const Value& value, const Value& other) {
  return value.kind() == other.kind() && Equals(value, other);
}

absl::StatusOr<bool> HasCase(const Value& value, bool upper) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Text text, value.ToText());
  const std::string& bytes = text.bytes();
  return ToUpper(bytes) != ToLower(bytes) && bytes == (upper ? ToUpper(bytes) : ToLower(bytes));
}

template <bool (Value::*check)() const>
absl::StatusOr<bool> Is(const Value& value, const Bound&) {
  return (value.*check)();
}

struct Entry {
  std::string_view name;
  size_t num_operands;
  Predicate holds;
};

// The sign of `Compare` is in the name.
#define GATEHOUSE_COMPARISON(name, sign)                                                           \
  Entry {                                                                                          \
    name, 1,                                                                                       \
        [](const Value& value, const Bound& operand) { return Compare(sign, value, *operand[0]); } \
  }

const std::array kTests = {
    Entry{"boolean", 0, Is<&Value::is_bool>},
    Entry{"callable", 0,
          [](const Value& v, const Bound&) -> absl::StatusOr<bool> {
            return v.function() != nullptr || v.is_undefined();
          }},
    Entry{"defined", 0,
          [](const Value& v, const Bound&) -> absl::StatusOr<bool> { return !v.is_undefined(); }},
    Entry{"divisibleby", 1,
          [](const Value& v, const Bound& operand) -> absl::StatusOr<bool> {
            const std::optional<int64_t> divisor = operand[0]->AsInteger();
            if (!divisor.has_value()) return WrongType("%", *operand[0], "an integer");
            return HasRemainder(v, *divisor, 0);
          }},
    Entry{"even", 0, [](const Value& v, const Bound&) { return HasRemainder(v, 2, 0); }},
    Entry{"false", 0,
          [](const Value& v, const Bound&) -> absl::StatusOr<bool> {
            return v.is_bool() && !v.IsTrue();
          }},
    Entry{"filter", 0,
          [](const Value& v, const Bound&) -> absl::StatusOr<bool> {
            return v.is_string() && IsFilter(v.bytes());
          }},
    Entry{"float", 0,
          [](const Value& v, const Bound&) -> absl::StatusOr<bool> {
            return v.kind() == Value::Kind::kFloat;
          }},
    Entry{"in", 1, [](const Value& v, const Bound& operand) { return Contains(*operand[0], v); }},
    Entry{"integer", 0, Is<&Value::is_integer>},
    Entry{"iterable", 0,
          [](const Value& v, const Bound&) -> absl::StatusOr<bool> { return IsIterable(v); }},
    Entry{"lower", 0, [](const Value& v, const Bound&) { return HasCase(v, false); }},
    Entry{"mapping", 0, Is<&Value::is_dict>},
    Entry{"none", 0, Is<&Value::is_none>},
    Entry{"number", 0,
          [](const Value& v, const Bound&) -> absl::StatusOr<bool> { return IsNumber(v); }},
    Entry{"odd", 0, [](const Value& v, const Bound&) { return HasRemainder(v, 2, 1); }},
    Entry{"sameas", 1,
          [](const Value& v, const Bound& operand) -> absl::StatusOr<bool> {
            return IsSame(v, *operand[0]);
          }},
    Entry{"sequence", 0,
          [](const Value& v, const Bound&) -> absl::StatusOr<bool> { return IsSequence(v); }},
    Entry{"string", 0, Is<&Value::is_string>},
    Entry{"test", 0,
          [](const Value& v,
             const Bound&) -> absl::StatusOr<bool> { return v.is_string() && IsTest(v.bytes()); }},
    Entry{"true", 0,
          [](const Value& v,
             const Bound&) -> absl::StatusOr<bool> { return v.is_bool() && v.IsTrue(); }},
    Entry{"undefined", 0, Is<&Value::is_undefined>},
    Entry{"upper", 0, [](const Value& v, const Bound&) { return HasCase(v, true); }},
    GATEHOUSE_COMPARISON("==", "=="),
    GATEHOUSE_COMPARISON("eq", "=="),
    GATEHOUSE_COMPARISON("equalto", "=="),
    GATEHOUSE_COMPARISON("!=", "!="),
    GATEHOUSE_COMPARISON("ne", "!="),
    GATEHOUSE_COMPARISON(">", ">"),
    GATEHOUSE_COMPARISON("gt", ">"),
    GATEHOUSE_COMPARISON("greaterthan", ">"),
    GATEHOUSE_COMPARISON(">=", ">="),
    GATEHOUSE_COMPARISON("ge", ">="),
    GATEHOUSE_COMPARISON("<", "<"),
    GATEHOUSE_COMPARISON("lt", "<"),
    GATEHOUSE_COMPARISON("lessthan", "<"),
    GATEHOUSE_COMPARISON("<=", "<="),
    GATEHOUSE_COMPARISON("le", "<="),
};
#undef GATEHOUSE_COMPARISON

const Entry* Find(std::string_view name) {
  for (const Entry& entry : kTests) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

}  // namespace

bool IsTest(std::string_view name) { return Find(name) != nullptr; }

absl::StatusOr<bool> CallTest(std::string_view name, const Value& value,
                              const Arguments& arguments) {
  const Entry* const test = Find(name);
  if (test == nullptr) {
    return absl::InvalidArgumentError(absl::StrFormat("No test named '%s'.", name));
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const Bound operand, Bind(name, test->num_operands == 1 ? "other" : "",
                                                       test->num_operands, arguments));
  return test->holds(value, operand);
}

}  // namespace gatehouse::jinja
