// A template's text to tokens, as jinja2 does it with trim_blocks and lstrip_blocks on.
// Pure functions, any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace gatehouse::jinja {

struct Token {
  enum class Kind {
    kData,           // text between the tags
    kVariableBegin,  // {{
    kVariableEnd,
    kBlockBegin,  // {%
    kBlockEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd,
  };
  Kind kind = Kind::kEnd;
  int line = 1;
  std::string text;  // of a string: unescaped

  bool IsName(std::string_view name) const { return kind == Kind::kName && text == name; }
  bool IsOperator(std::string_view sign) const { return kind == Kind::kOperator && text == sign; }
};

// The last token is kEnd. INVALID_ARGUMENT "line <n>: <problem>, expected <what>".
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

// How messages name a token: "'endfor'", "end of template".
std::string Describe(const Token& token);

}  // namespace gatehouse::jinja
