// How built-in filters, tests, methods and functions take their arguments.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/chat_template/interpreter.h"
#include "engine/chat_template/value.h"

namespace gatehouse::jinja {

// One value for each parameter of a signature, or nothing where it was left out.
using Bound = std::vector<std::optional<Value>>;

// `params` are names with a space between, the first `num_required` of which must be given.
absl::StatusOr<Bound> Bind(std::string_view callee, std::string_view params, size_t num_required,
                           const Arguments& arguments);

// The argument at `idx`, or `otherwise` where it was left out; INVALID_ARGUMENT for another type.
absl::StatusOr<int64_t> IntegerOr(const Bound& bound, size_t idx, int64_t otherwise);
absl::StatusOr<Text> TextOr(const Bound& bound, size_t idx, std::string_view otherwise);
bool FlagOr(const Bound& bound, size_t idx, bool otherwise);

// soft_str: the text that {{ value }} prints, charged.
absl::StatusOr<Text> TextOf(Interpreter& run, const Value& value);
absl::StatusOr<Value> MakeText(Interpreter& run, Text text);  // charged, too
absl::Status WrongType(std::string_view callee, const Value& value, std::string_view expected);

}  // namespace gatehouse::jinja
