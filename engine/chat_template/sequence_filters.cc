#include "engine/chat_template/sequence_filters.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "engine/chat_template/filters.h"
#include "engine/chat_template/operators.h"
#include "engine/chat_template/tests.h"
#include "kernels/base/status_macros.h"

namespace gatehouse::jinja {
namespace {

using Result = absl::StatusOr<Value>;

// "function.name" of `item`; integers in the path are indices.
Result FindPath(const Value& item, const Value& path) {
  if (!path.is_string()) return GetItem(item, path);
  Value found = item;
  const std::vector<std::string> parts = absl::StrSplit(path.bytes(), '.');
  for (const std::string& part : parts) {
    int64_t idx = 0;
    const bool is_index = !part.empty() &&
                          part.find_first_not_of("0123456789") == std::string::npos &&
                          absl::SimpleAtoi(part, &idx);
    GATEHOUSE_ASSIGN_OR_RETURN(
        found, GetItem(found, is_index ? Value::MakeInteger(idx) : Value::MakeString(part)));
  }
  return found;
}

// What items are compared by: perhaps an attribute, perhaps without case.
Result KeyOf(const Value& item, const std::optional<Value>& attribute, bool case_sensitive) {
  Value key = item;
  if (attribute.has_value() && !attribute->is_none()) {
    GATEHOUSE_ASSIGN_OR_RETURN(key, FindPath(item, *attribute));
  }
  if (case_sensitive || !key.is_string()) return key;
  return Value::MakeString(ToLower(key.bytes()));
}

// A list, as in jinja2, for several attributes may stand with commas between them. Lists whose
// first difference is none are equal, also when what they hold has no order.
Result SortKeyOf(const Value& item, const std::optional<Value>& attribute, bool case_sensitive) {
  std::vector<Value> keys;
  if (!attribute.has_value() || !attribute->is_string()) {
    GATEHOUSE_ASSIGN_OR_RETURN(Value key, KeyOf(item, attribute, case_sensitive));
    keys.push_back(std::move(key));
    return Value::MakeList(std::move(keys));
  }
  const std::vector<std::string> parts = absl::StrSplit(attribute->bytes(), ',');
  for (const std::string& part : parts) {
    GATEHOUSE_ASSIGN_OR_RETURN(Value key, KeyOf(item, Value::MakeString(part), case_sensitive));
    keys.push_back(std::move(key));
  }
  return Value::MakeList(std::move(keys));
}

using Keyed = std::pair<Value, Value>;  // key, item

absl::Status SortByKey(Interpreter& run, bool reverse, std::vector<Keyed>* keyed) {
  absl::Status status;
  std::stable_sort(keyed->begin(), keyed->end(), [&](const Keyed& a, const Keyed& b) {
    if (!status.ok()) return false;
    status = run.Charge(1);
    const absl::StatusOr<int> order =
        reverse ? Order(b.first, a.first, "<") : Order(a.first, b.first, "<");
    if (status.ok()) status = order.status();
    return status.ok() && *order < 0;
  });
  return status;
}

Result Extreme(Interpreter& run, const Value& value, const Bound& bound, int wanted) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<Value> items, run.Items(value));
  if (items.empty()) return Value::MakeUndefined("No aggregated item, sequence was empty.");
  const bool case_sensitive = FlagOr(bound, 0, false);
  size_t best_idx = 0;
  GATEHOUSE_ASSIGN_OR_RETURN(Value best, KeyOf(items[0], bound[1], case_sensitive));
  for (size_t i = 1; i < items.size(); ++i) {
    GATEHOUSE_ASSIGN_OR_RETURN(Value key, KeyOf(items[i], bound[1], case_sensitive));
    GATEHOUSE_ASSIGN_OR_RETURN(const int order, Order(key, best, wanted < 0 ? "<" : ">"));
    if (order != wanted) continue;
    best = std::move(key);
    best_idx = i;
  }
  return items[best_idx];
}

// arguments[first]: a test's name, then its operands; no test: truth.
absl::StatusOr<bool> Holds(const Value& value, const Arguments& arguments, size_t first) {
  if (arguments.positional.size() <= first) return value.IsTrue();
  const Value& name = arguments.positional[first];
  if (!name.is_string()) return WrongType("select", name, "the name of a test");
  Arguments operands{.positional = {}, .named = arguments.named};
  operands.positional.assign(arguments.positional.begin() + static_cast<std::ptrdiff_t>(first) + 1,
                             arguments.positional.end());
  return CallTest(name.bytes(), value, operands);
}

Result Filtered(Interpreter& run, const Value& value, const Arguments& arguments, bool by_attribute,
                bool wanted) {
  if (by_attribute && arguments.positional.empty()) {
    return absl::InvalidArgumentError("Missing parameter for attribute name");
  }
  if (!value.IsTrue()) return Value::MakeIterator({}, "generator");  // none, too
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<Value> items, run.Items(value));
  std::vector<Value> kept;
  for (const Value& item : items) {
    Value tested = item;
    if (by_attribute) {
      GATEHOUSE_ASSIGN_OR_RETURN(tested, FindPath(item, arguments.positional[0]));
    }
    GATEHOUSE_RETURN_IF_ERROR(run.Charge(1));
    GATEHOUSE_ASSIGN_OR_RETURN(const bool holds, Holds(tested, arguments, by_attribute ? 1 : 0));
    if (holds == wanted) kept.push_back(item);
  }
  return Value::MakeIterator(std::move(kept), "generator");
}

}  // namespace

Result Length(Interpreter&, const Value& value, const Bound&) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      return Value::MakeInteger(0);
    case Value::Kind::kString:
      return Value::MakeInteger(static_cast<int64_t>(CountCharacters(value.bytes())));
    case Value::Kind::kDict:
      return Value::MakeInteger(static_cast<int64_t>(value.dict().size()));
    case Value::Kind::kSequence:
      return Value::MakeInteger(static_cast<int64_t>(value.sequence()->items.size()));
    case Value::Kind::kLoop:
      return Value::MakeInteger(static_cast<int64_t>(value.loop()->items.size()));
    default:
      return WrongType("length", value, "something with a length");
  }
}

Result First(Interpreter& run, const Value& value, const Bound&) {
  if (Iterator* const iterator = value.iterator()) {
    if (iterator->next_idx < iterator->items.size()) return iterator->items[iterator->next_idx++];
    return Value::MakeUndefined("No first item, sequence was empty.");
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<Value> items, run.Items(value));
  return items.empty() ? Value::MakeUndefined("No first item, sequence was empty.") : items.front();
}

Result Last(Interpreter& run, const Value& value, const Bound&) {
  if (value.iterator() != nullptr) return WrongType("last", value, "something to read backwards");
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<Value> items, run.Items(value));
  return items.empty() ? Value::MakeUndefined("No last item, sequence was empty.") : items.back();
}

Result List(Interpreter& run, const Value& value, const Bound&) {
  GATEHOUSE_ASSIGN_OR_RETURN(std::vector<Value> items, run.Items(value));
  return Value::MakeList(std::move(items));
}

Result ItemsOf(Interpreter& run, const Value& value, const Bound&) {
  if (value.is_undefined()) return Value::MakeIterator({}, "generator");
  if (!value.is_dict())
    return absl::InvalidArgumentError("Can only get item pairs from a mapping.");
  GATEHOUSE_RETURN_IF_ERROR(run.ChargeItems(2 * value.dict().size()));
  std::vector<Value> pairs;
  for (const auto& [key, item] : value.dict().entries()) {
    GATEHOUSE_ASSIGN_OR_RETURN(
        Value pair, Value::MakeSequence({.type = Sequence::Type::kTuple, .items = {key, item}}));
    pairs.push_back(std::move(pair));
  }
  return Value::MakeIterator(std::move(pairs), "generator");
}

Result Reverse(Interpreter& run, const Value& value, const Bound&) {
  if (value.is_string()) return GetSlice(run, value, {.step = Value::MakeInteger(-1)});
  GATEHOUSE_ASSIGN_OR_RETURN(std::vector<Value> items, run.Items(value));
  std::reverse(items.begin(), items.end());
  if (value.iterator() != nullptr) return Value::MakeList(std::move(items));
  return Value::MakeIterator(std::move(items), "list_reverseiterator");
}

Result Join(Interpreter& run, const Value& value, const Bound& bound) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<Value> items, run.Items(value));
  Text separator;
  if (bound[0].has_value()) {
    GATEHOUSE_ASSIGN_OR_RETURN(separator, TextOf(run, *bound[0]));
  }
  Text joined;
  for (size_t i = 0; i < items.size(); ++i) {
    GATEHOUSE_ASSIGN_OR_RETURN(const Value item, KeyOf(items[i], bound[1], true));
    GATEHOUSE_ASSIGN_OR_RETURN(const Text text, TextOf(run, item));
    GATEHOUSE_RETURN_IF_ERROR(run.ChargeBytes(separator.size()));
    if (i > 0) joined.Append(separator);
    joined.Append(text);
  }
  return Value::MakeString(std::move(joined));
}

Result Min(Interpreter& run, const Value& value, const Bound& bound) {
  return Extreme(run, value, bound, -1);
}

Result Max(Interpreter& run, const Value& value, const Bound& bound) {
  return Extreme(run, value, bound, 1);
}

Result Unique(Interpreter& run, const Value& value, const Bound& bound) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<Value> items, run.Items(value));
  Dict seen;
  std::vector<Value> kept;
  for (const Value& item : items) {
    GATEHOUSE_ASSIGN_OR_RETURN(const Value key, KeyOf(item, bound[1], FlagOr(bound, 0, false)));
    GATEHOUSE_RETURN_IF_ERROR(CheckKey(key));
    GATEHOUSE_RETURN_IF_ERROR(run.Charge(static_cast<int64_t>(seen.size()) / 16 + 1));
    if (seen.Find(key) != nullptr) continue;
    seen.Set(key, Value::MakeNone());
    kept.push_back(item);
  }
  return Value::MakeIterator(std::move(kept), "generator");
}

Result ItemsOf(std::vector<Keyed> keyed) {
  std::vector<Value> items;
  items.reserve(keyed.size());
  for (Keyed& each : keyed) items.push_back(std::move(each.second));
  return Value::MakeList(std::move(items));
}

Result Sort(Interpreter& run, const Value& value, const Bound& bound) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<Value> items, run.Items(value));
  std::vector<Keyed> keyed;
  for (const Value& item : items) {
    GATEHOUSE_ASSIGN_OR_RETURN(Value key, SortKeyOf(item, bound[2], FlagOr(bound, 1, false)));
    keyed.emplace_back(std::move(key), item);
  }
  GATEHOUSE_RETURN_IF_ERROR(SortByKey(run, FlagOr(bound, 0, false), &keyed));
  return ItemsOf(std::move(keyed));
}

Result DictSort(Interpreter& run, const Value& value, const Bound& bound) {
  if (!value.is_dict()) return WrongType("dictsort", value, "a mapping");
  GATEHOUSE_ASSIGN_OR_RETURN(const Text by, TextOr(bound, 1, "key"));
  if (by.bytes() != "key" && by.bytes() != "value") {
    return absl::InvalidArgumentError("You can only sort by either \"key\" or \"value\"");
  }
  GATEHOUSE_RETURN_IF_ERROR(run.ChargeItems(3 * value.dict().size()));
  std::vector<Keyed> keyed;
  for (const auto& [key, item] : value.dict().entries()) {
    GATEHOUSE_ASSIGN_OR_RETURN(Value compared, KeyOf(by.bytes() == "key" ? key : item, std::nullopt,
                                                     FlagOr(bound, 0, false)));
    GATEHOUSE_ASSIGN_OR_RETURN(
        Value pair, Value::MakeSequence({.type = Sequence::Type::kTuple, .items = {key, item}}));
    keyed.emplace_back(std::move(compared), std::move(pair));
  }
  GATEHOUSE_RETURN_IF_ERROR(SortByKey(run, FlagOr(bound, 2, false), &keyed));
  return ItemsOf(std::move(keyed));
}

Result Sum(Interpreter& run, const Value& value, const Bound& bound) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<Value> items, run.Items(value));
  Value total = bound[1].value_or(Value::MakeInteger(0));
  for (const Value& item : items) {
    GATEHOUSE_ASSIGN_OR_RETURN(const Value addend, KeyOf(item, bound[0], true));
    GATEHOUSE_ASSIGN_OR_RETURN(total, Calculate(run, "+", total, addend));
  }
  return total;
}

Result Map(Interpreter& run, const Value& value, const Arguments& arguments) {
  if (!value.IsTrue()) return Value::MakeIterator({}, "generator");
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<Value> items, run.Items(value));
  std::vector<Value> mapped;
  if (!arguments.positional.empty()) {
    const Value& name = arguments.positional[0];
    if (!name.is_string()) return WrongType("map", name, "the name of a filter");
    // Each filter that takes a filter is a level of the stack.
    if (name.bytes() == "map") return absl::InvalidArgumentError("map cannot map by map");
    Arguments rest{.positional = {}, .named = arguments.named};
    rest.positional.assign(arguments.positional.begin() + 1, arguments.positional.end());
    for (const Value& item : items) {
      GATEHOUSE_RETURN_IF_ERROR(run.Charge(1));
      GATEHOUSE_ASSIGN_OR_RETURN(Value result, CallFilter(run, name.bytes(), item, rest));
      mapped.push_back(std::move(result));
    }
    return Value::MakeIterator(std::move(mapped), "generator");
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const Bound bound, Bind("map", "attribute default", 1, arguments));
  for (const Value& item : items) {
    GATEHOUSE_ASSIGN_OR_RETURN(Value found, FindPath(item, *bound[0]));
    if (found.is_undefined() && bound[1].has_value()) found = *bound[1];
    mapped.push_back(std::move(found));
  }
  return Value::MakeIterator(std::move(mapped), "generator");
}

Result Select(Interpreter& run, const Value& value, const Arguments& arguments) {
  return Filtered(run, value, arguments, false, true);
}
Result Reject(Interpreter& run, const Value& value, const Arguments& arguments) {
  return Filtered(run, value, arguments, false, false);
}
Result SelectByAttribute(Interpreter& run, const Value& value, const Arguments& arguments) {
  return Filtered(run, value, arguments, true, true);
}
Result RejectByAttribute(Interpreter& run, const Value& value, const Arguments& arguments) {
  return Filtered(run, value, arguments, true, false);
}

}  // namespace gatehouse::jinja
