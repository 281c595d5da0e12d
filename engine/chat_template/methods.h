// Methods of Python's str, dict and list that the sandbox of transformers lets templates call, and
// the attributes of `loop`.
#pragma once

#include <optional>
#include <string_view>

#include "engine/chat_template/interpreter.h"

namespace gatehouse::jinja {

// The method's name, static; nothing when values of this type have no such method.
std::optional<std::string_view> FindMethod(const Value& value, std::string_view name);
// What Python has but a template must not call: list.append, dict.update, ...
bool IsForbiddenMethod(const Value& value, std::string_view name);
absl::StatusOr<Value> CallMethod(Interpreter& run, const Value& self, std::string_view name,
                                 const Arguments& arguments);

std::optional<Value> FindLoopAttribute(const LoopState& loop, std::string_view name);

}  // namespace gatehouse::jinja
