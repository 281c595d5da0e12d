#include "engine/chat_template/operators.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "absl/strings/str_format.h"
#include "engine/chat_template/call.h"
#include "engine/chat_template/methods.h"
#include "engine/chat_template/string_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse::jinja {
namespace {

absl::Status Overflow() { return absl::InvalidArgumentError("a number does not fit into 64 bits"); }
absl::Status DivisionByZero() { return absl::InvalidArgumentError("division by zero"); }

absl::Status Unsupported(std::string_view sign, const Value& left, const Value& right) {
  if (left.is_undefined()) return absl::InvalidArgumentError(left.undefined_reason());
  if (right.is_undefined()) return absl::InvalidArgumentError(right.undefined_reason());
  return absl::InvalidArgumentError(absl::StrFormat("'%s' is not supported between %s and %s", sign,
                                                    left.TypeName(), right.TypeName()));
}

int64_t FloorDivide(int64_t left, int64_t right) {
  const int64_t quotient = left / right;
  return quotient - ((left % right != 0) && ((left < 0) != (right < 0)) ? 1 : 0);
}

absl::StatusOr<Value> Power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return DivisionByZero();
    return Value::MakeFloat(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  if (base == 0 || base == 1) return Value::MakeInteger(exponent == 0 ? 1 : base);
  if (base == -1) return Value::MakeInteger(exponent % 2 == 0 ? 1 : -1);
  int64_t result = 1;
  for (; exponent > 0; --exponent) {  // at most 63 turns
    if (__builtin_mul_overflow(result, base, &result)) return Overflow();
  }
  return Value::MakeInteger(result);
}

absl::StatusOr<Value> CalculateIntegers(std::string_view sign, int64_t left, int64_t right) {
  int64_t result = 0;
  if (sign == "**") return Power(left, right);
  if (sign == "+") {
    if (__builtin_add_overflow(left, right, &result)) return Overflow();
  } else if (sign == "-") {
    if (__builtin_sub_overflow(left, right, &result)) return Overflow();
  } else if (sign == "*") {
    if (__builtin_mul_overflow(left, right, &result)) return Overflow();
  } else {
    if (right == 0) return DivisionByZero();
    if (sign == "/") {
      return Value::MakeFloat(static_cast<double>(left) / static_cast<double>(right));
    }
    if (right == -1) {  // INT64_MIN / -1 traps
      if (sign == "%") return Value::MakeInteger(0);
      if (__builtin_sub_overflow(int64_t{0}, left, &result)) return Overflow();
      return Value::MakeInteger(result);
    }
    result = FloorDivide(left, right);
    if (sign == "%") result = left - result * right;
  }
  return Value::MakeInteger(result);
}

absl::StatusOr<Value> CalculateFloats(std::string_view sign, double left, double right) {
  if (sign == "+") return Value::MakeFloat(left + right);
  if (sign == "-") return Value::MakeFloat(left - right);
  if (sign == "*") return Value::MakeFloat(left * right);
  if (sign == "**") {
    if (left == 0 && right < 0) return DivisionByZero();
    if (left < 0 && right != std::floor(right)) {
      return absl::InvalidArgumentError("a negative number to a broken power");
    }
    const double power = std::pow(left, right);
    if (std::isinf(power) && std::isfinite(left) && std::isfinite(right)) return Overflow();
    return Value::MakeFloat(power);
  }
  if (right == 0) return DivisionByZero();
  if (sign == "/") return Value::MakeFloat(left / right);
  double remainder = std::fmod(left, right);  // as CPython's float_divmod does it
  if (remainder != 0 && (right < 0) != (remainder < 0)) remainder += right;
  if (remainder == 0) remainder = std::copysign(0.0, right);
  if (sign == "%") return Value::MakeFloat(remainder);
  const double quotient = (left - remainder) / right;
  double floored = std::floor(quotient);
  if (quotient - floored > 0.5) floored += 1;
  return Value::MakeFloat(quotient == 0 ? std::copysign(0.0, left / right) : floored);
}

absl::StatusOr<Value> Repeat(Interpreter& run, const Value& value, int64_t count) {
  const auto times = static_cast<size_t>(std::clamp<int64_t>(count, 0, 1 << 30));
  if (value.is_string()) {
    const size_t size = value.bytes().size();
    if (size > 0) GATEHOUSE_RETURN_IF_ERROR(run.Charge(static_cast<int64_t>(times)));
    GATEHOUSE_RETURN_IF_ERROR(run.ChargeBytes(size == 0 ? 0 : size * times));
    Text text;
    for (size_t i = 0; size > 0 && i < times; ++i) text.Append(value.text());
    return Value::MakeString(std::move(text));
  }
  const size_t num_items = value.list()->size();
  if (num_items == 0) return value;
  GATEHOUSE_RETURN_IF_ERROR(run.ChargeItems(times));
  GATEHOUSE_RETURN_IF_ERROR(run.ChargeItems(times * num_items));
  Sequence repeated{.type = value.sequence()->type, .items = {}};
  for (size_t i = 0; i < times; ++i) {
    repeated.items.insert(repeated.items.end(), value.list()->begin(), value.list()->end());
  }
  return Value::MakeSequence(std::move(repeated));
}

absl::StatusOr<Value> Join(Interpreter& run, const Value& left, const Value& right) {
  if (left.is_string()) {
    GATEHOUSE_RETURN_IF_ERROR(run.ChargeBytes(left.bytes().size() + right.bytes().size()));
    Text text = left.text();
    text.Append(right.text());
    return Value::MakeString(std::move(text));
  }
  GATEHOUSE_RETURN_IF_ERROR(run.ChargeItems(left.list()->size() + right.list()->size()));
  Sequence joined{.type = left.sequence()->type, .items = *left.list()};
  joined.items.insert(joined.items.end(), right.list()->begin(), right.list()->end());
  return Value::MakeSequence(std::move(joined));
}

// Python's slice.indices: the places of a sequence of `size` that the bounds name, in order.
absl::StatusOr<std::vector<size_t>> SliceIndices(const SliceBounds& bounds, int64_t size) {
  const int64_t step = bounds.step.is_none() ? 1 : *bounds.step.AsInteger();
  if (step == 0) return absl::InvalidArgumentError("slice step cannot be zero");
  const int64_t lowest = step > 0 ? 0 : -1;
  const int64_t highest = step > 0 ? size : size - 1;
  const auto place = [&](const Value& bound, int64_t otherwise) {
    if (bound.is_none()) return otherwise;
    const int64_t given = *bound.AsInteger();
    return given < 0 ? std::max(given < -size ? lowest : given + size, lowest)
                     : std::min(given, highest);
  };
  const int64_t begin = place(bounds.begin, step > 0 ? lowest : highest);
  const int64_t end = place(bounds.end, step > 0 ? highest : lowest);
  std::vector<size_t> indices;
  if (step > 0) {
    for (int64_t i = begin; i<end; i = step> end - i ? end : i + step) {
      indices.push_back(static_cast<size_t>(i));
    }
  } else {
    for (int64_t i = begin; i > end; i = step < end - i ? end : i + step) {
      indices.push_back(static_cast<size_t>(i));
    }
  }
  return indices;
}

std::string MissingIn(const Value& value, const std::string& key) {
  return absl::StrFormat("'%s object' has no attribute '%s'", value.TypeName(), key);
}

// Python's places: negative ones count from the end.
std::optional<size_t> PlaceOf(int64_t idx, size_t size) {
  const auto count = static_cast<int64_t>(size);
  if (idx < 0) idx += count;
  if (idx < 0 || idx >= count) return std::nullopt;
  return static_cast<size_t>(idx);
}

std::optional<Value> FindIndex(const Value& value, int64_t idx) {
  if (value.is_string()) {
    const std::optional<size_t> i = PlaceOf(idx, CountCharacters(value.bytes()));
    if (!i.has_value()) return std::nullopt;
    const std::vector<size_t> offsets = CharacterOffsets(value.bytes());
    return Value::MakeString(value.text().Part(offsets[*i], offsets[*i + 1]));
  }
  const Sequence* const sequence = value.sequence();
  const bool is_view = sequence != nullptr && sequence->type > Sequence::Type::kRange;
  if (sequence == nullptr || is_view) return std::nullopt;
  const std::optional<size_t> i = PlaceOf(idx, sequence->items.size());
  return i.has_value() ? std::optional<Value>(sequence->items[*i]) : std::nullopt;
}

}  // namespace

absl::StatusOr<Value> Negate(const Value& value) {
  if (const std::optional<int64_t> integer = value.AsInteger()) {
    if (*integer == std::numeric_limits<int64_t>::min()) return Overflow();
    return Value::MakeInteger(-*integer);
  }
  if (const std::optional<double> number = value.AsNumber()) return Value::MakeFloat(-*number);
  return WrongType("-", value, "a number");
}

absl::StatusOr<Value> Calculate(Interpreter& run, std::string_view sign, const Value& left,
                                const Value& right) {
  const std::optional<int64_t> left_integer = left.AsInteger();
  const std::optional<int64_t> right_integer = right.AsInteger();
  if (left_integer.has_value() && right_integer.has_value()) {
    return CalculateIntegers(sign, *left_integer, *right_integer);
  }
  const std::optional<double> left_number = left.AsNumber();
  const std::optional<double> right_number = right.AsNumber();
  if (left_number.has_value() && right_number.has_value()) {
    return CalculateFloats(sign, *left_number, *right_number);
  }
  const bool is_list = left.list() != nullptr;
  if (sign == "+") {
    if (left.is_string() && right.is_string()) return Join(run, left, right);
    if (is_list && right.list() != nullptr && left.sequence()->type == right.sequence()->type) {
      return Join(run, left, right);
    }
  }
  if (sign == "*") {
    if ((left.is_string() || is_list) && right_integer.has_value()) {
      return Repeat(run, left, *right_integer);
    }
    if ((right.is_string() || right.list() != nullptr) && left_integer.has_value()) {
      return Repeat(run, right, *left_integer);
    }
  }
  if (sign == "%" && left.is_string() && !right.is_undefined()) {
    return FormatPercent(run, left.text(), right);
  }
  return Unsupported(sign, left, right);
}

absl::StatusOr<bool> Compare(std::string_view sign, const Value& left, const Value& right) {
  if (sign == "==") return Equals(left, right);
  if (sign == "!=") return !Equals(left, right);
  if (sign == "in") return Contains(right, left);
  if (sign == "not in") {
    GATEHOUSE_ASSIGN_OR_RETURN(const bool contains, Contains(right, left));
    return !contains;
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const int order, Order(left, right, sign));
  if (sign == "<") return order < 0;
  if (sign == "<=") return order <= 0;
  if (sign == ">") return order > 0;
  return order >= 0;
}

absl::StatusOr<Value> GetAttribute(const Value& value, std::string_view name) {
  if (value.is_undefined()) return absl::InvalidArgumentError(value.undefined_reason());
  if (Namespace* const space = value.space()) {
    if (const Value* found = space->attributes.Find(name)) return *found;
  } else if (const LoopState* loop = value.loop()) {
    if (std::optional<Value> found = FindLoopAttribute(*loop, name)) return *std::move(found);
  }
  if (const std::optional<std::string_view> method = FindMethod(value, name)) {
    return Value::MakeFunction({.name = *method, .self = value});
  }
  // What Python has and the sandbox forbids hides an item of the same name, too.
  if (!IsForbiddenMethod(value, name) && value.is_dict()) {
    if (const Value* found = value.dict().Find(name)) return *found;
  }
  return Value::MakeUndefined(MissingIn(value, std::string(name)));
}

absl::StatusOr<Value> GetItem(const Value& value, const Value& key) {
  if (value.is_undefined()) return absl::InvalidArgumentError(value.undefined_reason());
  if (value.is_dict()) {
    const Value* const found = CheckKey(key).ok() ? value.dict().Find(key) : nullptr;
    if (found != nullptr) return *found;
  } else if (const std::optional<int64_t> idx = key.AsInteger()) {
    if (std::optional<Value> found = FindIndex(value, *idx)) return *std::move(found);
  }
  if (key.is_string()) return GetAttribute(value, key.bytes());
  Text repr;
  GATEHOUSE_RETURN_IF_ERROR(key.AppendRepr(&repr));
  return Value::MakeUndefined(
      absl::StrFormat("%s object has no element %s", value.TypeName(), repr.bytes()));
}

absl::StatusOr<Value> GetSlice(Interpreter& run, const Value& value, const SliceBounds& bounds) {
  if (value.is_undefined()) return absl::InvalidArgumentError(value.undefined_reason());
  for (const Value* bound : {&bounds.begin, &bounds.end, &bounds.step}) {
    if (!bound->is_none() && !bound->AsInteger().has_value()) {
      return absl::InvalidArgumentError("a slice's bounds must be integers");
    }
  }
  if (value.is_string()) {
    GATEHOUSE_RETURN_IF_ERROR(run.ChargeBytes(value.bytes().size()));
    const std::vector<size_t> offsets = CharacterOffsets(value.bytes());
    GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<size_t> indices,
                               SliceIndices(bounds, static_cast<int64_t>(offsets.size()) - 1));
    Text text;
    for (const size_t i : indices) text.AppendPart(value.text(), offsets[i], offsets[i + 1]);
    return Value::MakeString(std::move(text));
  }
  const Sequence* const sequence = value.sequence();
  if (sequence == nullptr || sequence->type > Sequence::Type::kRange) {
    return absl::InvalidArgumentError(
        absl::StrFormat("a value of type %s cannot be sliced", value.TypeName()));
  }
  const auto size = static_cast<int64_t>(sequence->items.size());
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<size_t> indices, SliceIndices(bounds, size));
  GATEHOUSE_RETURN_IF_ERROR(run.ChargeItems(indices.size()));
  Sequence slice{.type = sequence->type, .items = {}};
  if (slice.type == Sequence::Type::kRange) slice.type = Sequence::Type::kList;
  for (const size_t i : indices) slice.items.push_back(sequence->items[i]);
  return Value::MakeSequence(std::move(slice));
}

}  // namespace gatehouse::jinja
