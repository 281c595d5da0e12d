// Tokens to statements, by jinja2's grammar without inheritance, includes, imports and call
// blocks, which no chat template can use or needs.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/chat_template/ast.h"

namespace gatehouse::jinja {

// INVALID_ARGUMENT "line <n>: <problem>, expected <what>". Unknown filters and tests are errors.
absl::StatusOr<Body> ParseTemplate(std::string_view source);

}  // namespace gatehouse::jinja
