// jinja2's tests, what stands behind `is`.
#pragma once

#include <string_view>

#include "engine/chat_template/interpreter.h"

namespace gatehouse::jinja {

bool IsTest(std::string_view name);
// `name` passed IsTest, or INVALID_ARGUMENT: `select` takes the name at run time.
absl::StatusOr<bool> CallTest(std::string_view name, const Value& value,
                              const Arguments& arguments);

}  // namespace gatehouse::jinja
