#include "engine/chat_template/call.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "kernels/base/status_macros.h"

namespace gatehouse::jinja {

absl::StatusOr<Bound> Bind(std::string_view callee, std::string_view params, size_t num_required,
                           const Arguments& arguments) {
  const std::vector<std::string> names =
      absl::StrSplit(absl::string_view(params.data(), params.size()), ' ', absl::SkipEmpty());
  if (arguments.positional.size() > names.size()) {
    return absl::InvalidArgumentError(absl::StrFormat("'%s' got %d arguments, it takes at most %d",
                                                      callee, arguments.positional.size(),
                                                      names.size()));
  }
  Bound bound(arguments.positional.begin(), arguments.positional.end());
  bound.resize(names.size());
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) {
      return absl::InvalidArgumentError(absl::StrFormat("'%s' has no argument '%s'", callee, name));
    }
    std::optional<Value>& place = bound[static_cast<size_t>(found - names.begin())];
    if (place.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("'%s' got the argument '%s' twice", callee, name));
    }
    place = value;
  }
  for (size_t i = 0; i < num_required; ++i) {
    if (bound[i].has_value()) continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("'%s' needs the argument '%s'", callee, names[i]));
  }
  return bound;
}

absl::StatusOr<int64_t> IntegerOr(const Bound& bound, size_t idx, int64_t otherwise) {
  if (!bound[idx].has_value()) return otherwise;
  const std::optional<int64_t> value = bound[idx]->AsInteger();
  if (!value.has_value()) return WrongType("argument", *bound[idx], "an integer");
  return *value;
}

absl::StatusOr<Text> TextOr(const Bound& bound, size_t idx, std::string_view otherwise) {
  if (!bound[idx].has_value()) return Text(std::string(otherwise));
  if (!bound[idx]->is_string()) return WrongType("argument", *bound[idx], "a string");
  return bound[idx]->text();
}

bool FlagOr(const Bound& bound, size_t idx, bool otherwise) {
  return bound[idx].has_value() ? bound[idx]->IsTrue() : otherwise;
}

absl::StatusOr<Text> TextOf(Interpreter& run, const Value& value) {
  GATEHOUSE_ASSIGN_OR_RETURN(Text text, value.ToText());
  GATEHOUSE_RETURN_IF_ERROR(run.ChargeBytes(text.size()));
  return text;
}

absl::StatusOr<Value> MakeText(Interpreter& run, Text text) {
  GATEHOUSE_RETURN_IF_ERROR(run.ChargeBytes(text.size()));
  return Value::MakeString(std::move(text));
}

absl::Status WrongType(std::string_view callee, const Value& value, std::string_view expected) {
  if (value.is_undefined()) return absl::InvalidArgumentError(value.undefined_reason());
  return absl::InvalidArgumentError(
      absl::StrFormat("'%s' got %s, expected %s", callee, value.TypeName(), expected));
}

}  // namespace gatehouse::jinja
