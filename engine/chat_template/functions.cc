#include "engine/chat_template/functions.h"

#include <array>
#include <ctime>

#include "absl/strings/str_format.h"
#include "engine/chat_template/call.h"
#include "kernels/base/status_macros.h"

namespace gatehouse::jinja {
namespace {

using Builtin = absl::StatusOr<Value> (*)(Interpreter& run, const Arguments& arguments);

constexpr int64_t kMaxRange = 100'000;  // jinja2's sandbox has the same

absl::StatusOr<Value> Range(Interpreter& run, const Arguments& arguments) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Bound bound, Bind("range", "start stop step", 1, arguments));
  Sequence range{.type = Sequence::Type::kRange, .items = {}};
  GATEHOUSE_ASSIGN_OR_RETURN(const int64_t first, IntegerOr(bound, 0, 0));
  GATEHOUSE_ASSIGN_OR_RETURN(const int64_t second, IntegerOr(bound, 1, first));
  GATEHOUSE_ASSIGN_OR_RETURN(const int64_t step, IntegerOr(bound, 2, 1));
  const int64_t start = bound[1].has_value() ? first : 0;
  if (step == 0) return absl::InvalidArgumentError("range() arg 3 must not be zero");
  range.range[0] = start;
  range.range[1] = second;
  range.range[2] = step;
  for (int64_t i = start; step > 0 ? i < second : i > second;) {
    if (range.items.size() == static_cast<size_t>(kMaxRange)) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", kMaxRange));
    }
    range.items.push_back(Value::MakeInteger(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  GATEHOUSE_RETURN_IF_ERROR(run.ChargeItems(range.items.size()));
  return Value::MakeSequence(std::move(range));
}

// The arguments of dict() and namespace(): perhaps a mapping or pairs, then names.
absl::StatusOr<Dict> ReadDict(Interpreter& run, const Arguments& arguments) {
  Dict dict;
  if (arguments.positional.size() > 1) {
    return absl::InvalidArgumentError("a dictionary is made of one argument and of names");
  }
  if (!arguments.positional.empty()) {
    const Value& from = arguments.positional[0];
    if (from.is_dict()) {
      dict = from.dict();
    } else {
      GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<Value> pairs, run.Items(from));
      for (const Value& pair : pairs) {
        GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<Value> entry, run.Items(pair));
        if (entry.size() != 2) {
          return absl::InvalidArgumentError("a dictionary is made of pairs");
        }
        GATEHOUSE_RETURN_IF_ERROR(CheckKey(entry[0]));
        dict.Set(entry[0], entry[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) dict.Set(name, value);
  GATEHOUSE_RETURN_IF_ERROR(run.ChargeItems(dict.size()));
  return dict;
}

absl::StatusOr<Value> MakeDictionary(Interpreter& run, const Arguments& arguments) {
  GATEHOUSE_ASSIGN_OR_RETURN(Dict dict, ReadDict(run, arguments));
  return Value::MakeDict(std::move(dict));
}

absl::StatusOr<Value> MakeSpace(Interpreter& run, const Arguments& arguments) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Dict dict, ReadDict(run, arguments));
  for (const auto& [name, value] : dict.entries()) {
    if (name.is_string() && !name.bytes().empty() && name.bytes()[0] == '_') {
      return absl::InvalidArgumentError(
          absl::StrFormat("attribute '%s' begins with an underscore", name.bytes()));
    }
  }
  return run.MakeNamespace(dict);
}

absl::StatusOr<Value> RaiseException(Interpreter& run, const Arguments& arguments) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Bound bound, Bind("raise_exception", "message", 1, arguments));
  GATEHOUSE_ASSIGN_OR_RETURN(const Text message, TextOf(run, *bound[0]));
  return run.Raise(message.bytes());
}

absl::StatusOr<Value> FormatTime(Interpreter& run, const Arguments& arguments) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Bound bound, Bind("strftime_now", "format", 1, arguments));
  GATEHOUSE_ASSIGN_OR_RETURN(const Text format, TextOr(bound, 0, ""));
  const std::time_t now = run.unix_seconds();
  std::tm local{};
  std::array<char, 1024> text{};
  if (format.bytes().empty() || localtime_r(&now, &local) == nullptr) {
    return Value::MakeString(Text());
  }
  const size_t size = std::strftime(text.data(), text.size(), format.bytes().c_str(), &local);
  if (size == 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("strftime_now writes more than %d bytes", text.size()));
  }
  return MakeText(run, format.Derive(std::string(text.data(), size)));
}

struct Entry {
  std::string_view name;
  Builtin call;
};
constexpr std::array<Entry, 5> kFunctions = {{
    {"dict", MakeDictionary},
    {"namespace", MakeSpace},
    {"raise_exception", RaiseException},
    {"range", Range},
    {"strftime_now", FormatTime},
}};

const Entry* Find(std::string_view name) {
  for (const Entry& entry : kFunctions) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

}  // namespace

std::optional<std::string_view> FindFunction(std::string_view name) {
  const Entry* const found = Find(name);
  if (found == nullptr) return std::nullopt;
  return found->name;
}

absl::StatusOr<Value> CallFunction(Interpreter& run, std::string_view name,
                                   const Arguments& arguments) {
  return Find(name)->call(run, arguments);
}

}  // namespace gatehouse::jinja
