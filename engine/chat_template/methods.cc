#include "engine/chat_template/methods.h"

#include <algorithm>
#include <array>
#include <limits>

#include "absl/strings/str_format.h"
#include "engine/chat_template/call.h"
#include "engine/chat_template/string_methods.h"
#include "kernels/base/status_macros.h"

namespace gatehouse::jinja {
namespace {

constexpr std::array<std::string_view, 5> kDictMethods = {"copy", "get", "items", "keys", "values"};
constexpr std::array<std::string_view, 5> kForbiddenDictMethods = {"clear", "pop", "popitem",
                                                                   "setdefault", "update"};
constexpr std::array<std::string_view, 3> kListMethods = {"copy", "count", "index"};
constexpr std::array<std::string_view, 8> kForbiddenListMethods = {
    "append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"};
constexpr std::array<std::string_view, 1> kLoopMethods = {"cycle"};

template <size_t n>
std::optional<std::string_view> FindIn(const std::array<std::string_view, n>& names,
                                       std::string_view name) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) return std::nullopt;
  return *found;
}

absl::StatusOr<Value> CallDictMethod(Interpreter& run, const Value& self, std::string_view name,
                                     const Arguments& arguments) {
  const Dict& dict = self.dict();
  if (name == "get") {
    GATEHOUSE_ASSIGN_OR_RETURN(const Bound bound, Bind(name, "key default", 1, arguments));
    GATEHOUSE_RETURN_IF_ERROR(CheckKey(*bound[0]));
    if (const Value* found = dict.Find(*bound[0])) return *found;
    return bound[1].value_or(Value::MakeNone());
  }
  GATEHOUSE_RETURN_IF_ERROR(Bind(name, "", 0, arguments).status());
  GATEHOUSE_RETURN_IF_ERROR(run.ChargeItems(2 * dict.size()));
  if (name == "copy") return self;
  Sequence view{.type = name == "keys"     ? Sequence::Type::kKeys
                        : name == "values" ? Sequence::Type::kValues
                                           : Sequence::Type::kItems,
                .items = {}};
  for (const auto& [key, value] : dict.entries()) {
    if (name == "items") {
      GATEHOUSE_ASSIGN_OR_RETURN(
          Value pair, Value::MakeSequence({.type = Sequence::Type::kTuple, .items = {key, value}}));
      view.items.push_back(std::move(pair));
    } else {
      view.items.push_back(name == "keys" ? key : value);
    }
  }
  return Value::MakeSequence(std::move(view));
}

absl::StatusOr<Value> CallListMethod(Interpreter& run, const Value& self, std::string_view name,
                                     const Arguments& arguments) {
  if (name == "copy") {
    GATEHOUSE_RETURN_IF_ERROR(Bind(name, "", 0, arguments).status());
    return self;
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const Bound bound, Bind(name, "value", 1, arguments));
  const std::vector<Value>& items = *self.list();
  GATEHOUSE_RETURN_IF_ERROR(run.ChargeWalk(self));
  const auto equal = [&bound](const Value& item) { return Equals(item, *bound[0]); };
  if (name == "count") {
    return Value::MakeInteger(std::count_if(items.begin(), items.end(), equal));
  }
  const auto found = std::find_if(items.begin(), items.end(), equal);
  if (found == items.end()) return absl::InvalidArgumentError("the value is not in the list");
  return Value::MakeInteger(found - items.begin());
}

}  // namespace

std::optional<std::string_view> FindMethod(const Value& value, std::string_view name) {
  if (value.is_string()) return FindStringMethod(name);
  if (value.is_dict()) return FindIn(kDictMethods, name);
  if (value.loop() != nullptr) return FindIn(kLoopMethods, name);
  if (value.list() == nullptr) return std::nullopt;
  if (name == "copy" && value.sequence()->type == Sequence::Type::kTuple) return std::nullopt;
  return FindIn(kListMethods, name);
}

bool IsForbiddenMethod(const Value& value, std::string_view name) {
  if (value.is_dict()) {
    return name == "fromkeys" || FindIn(kForbiddenDictMethods, name).has_value();
  }
  return value.list() != nullptr && FindIn(kForbiddenListMethods, name).has_value();
}

absl::StatusOr<Value> CallMethod(Interpreter& run, const Value& self, std::string_view name,
                                 const Arguments& arguments) {
  if (self.is_string()) return CallStringMethod(run, self.text(), name, arguments);
  if (self.is_dict()) return CallDictMethod(run, self, name, arguments);
  if (const LoopState* loop = self.loop()) {  // cycle
    if (arguments.positional.empty() || !arguments.named.empty()) {
      return absl::InvalidArgumentError("loop.cycle needs values to choose from");
    }
    return arguments.positional[static_cast<size_t>(loop->idx) % arguments.positional.size()];
  }
  return CallListMethod(run, self, name, arguments);
}

std::optional<Value> FindLoopAttribute(const LoopState& loop, std::string_view name) {
  const auto size = static_cast<int64_t>(loop.items.size());
  const auto item = [&loop, size](int64_t idx, const char* missing) {
    return idx >= 0 && idx < size ? loop.items[static_cast<size_t>(idx)]
                                  : Value::MakeUndefined(missing);
  };
  if (name == "index") return Value::MakeInteger(loop.idx + 1);
  if (name == "index0") return Value::MakeInteger(loop.idx);
  if (name == "revindex") return Value::MakeInteger(size - loop.idx);
  if (name == "revindex0") return Value::MakeInteger(size - loop.idx - 1);
  if (name == "first") return Value::MakeBool(loop.idx == 0);
  if (name == "last") return Value::MakeBool(loop.idx + 1 == size);
  if (name == "length") return Value::MakeInteger(size);
  if (name == "depth") return Value::MakeInteger(1);  // counts recursive calls alone
  if (name == "depth0") return Value::MakeInteger(0);
  if (name == "previtem") return item(loop.idx - 1, "there is no previous item");
  if (name == "nextitem") return item(loop.idx + 1, "there is no next item");
  return std::nullopt;
}

}  // namespace gatehouse::jinja
