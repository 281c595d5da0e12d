// json.dumps as the filter tojson of transformers calls it.
#pragma once

#include <optional>
#include <string>

#include "engine/chat_template/interpreter.h"

namespace gatehouse::jinja {

struct JsonStyle {
  bool ensure_ascii = false;
  std::optional<std::string> indent = std::nullopt;  // of one level; nothing: one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};

// INVALID_ARGUMENT for what json cannot write.
absl::StatusOr<Text> ToJson(Interpreter& run, const Value& value, const JsonStyle& style);

}  // namespace gatehouse::jinja
