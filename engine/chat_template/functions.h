// The functions that every template has: range, dict, namespace, raise_exception, strftime_now.
#pragma once

#include <optional>
#include <string_view>

#include "engine/chat_template/interpreter.h"

namespace gatehouse::jinja {

// The name, static; nothing when there is no such function.
std::optional<std::string_view> FindFunction(std::string_view name);
absl::StatusOr<Value> CallFunction(Interpreter& run, std::string_view name,
                                   const Arguments& arguments);

}  // namespace gatehouse::jinja
