// Methods of Python's str.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/chat_template/interpreter.h"

namespace gatehouse::jinja {

// The method's name, static; nothing when there is none.
std::optional<std::string_view> FindStringMethod(std::string_view name);
absl::StatusOr<Value> CallStringMethod(Interpreter& run, const Text& self, std::string_view name,
                                       const Arguments& arguments);

// `chars` null: white space.
Text Strip(const Text& text, const std::string* chars, bool left, bool right);
// max_count < 0: all.
absl::StatusOr<Text> Replace(Interpreter& run, const Text& text, const Text& old,
                             const Text& replacement, int64_t max_count);
std::vector<Text> SplitLines(const Text& text, bool keep_ends);

}  // namespace gatehouse::jinja
