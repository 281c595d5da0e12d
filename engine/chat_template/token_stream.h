// The tokens of a template under a parser's eye. Used by the two parsers alone.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "engine/chat_template/lexer.h"

namespace gatehouse::jinja {

class TokenStream {
 public:
  // `tokens` end with kEnd.
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[next_]; }
  const Token& following() const { return tokens_[std::min(next_ + 1, tokens_.size() - 1)]; }
  int line() const { return current().line; }
  void Advance() {
    if (next_ + 1 < tokens_.size()) ++next_;
  }
  bool SkipName(std::string_view name) {
    const bool found = current().IsName(name);
    if (found) Advance();
    return found;
  }
  bool SkipOperator(std::string_view sign) {
    const bool found = current().IsOperator(sign);
    if (found) Advance();
    return found;
  }
  absl::Status Fail(std::string_view expected) const {
    return absl::InvalidArgumentError(absl::StrFormat("line %d: unexpected %s, expected %s", line(),
                                                      Describe(current()), expected));
  }
  absl::Status Expect(Token::Kind kind, std::string_view expected) {
    if (current().kind != kind) return Fail(expected);
    Advance();
    return absl::OkStatus();
  }
  absl::Status ExpectOperator(std::string_view sign) {
    if (SkipOperator(sign)) return absl::OkStatus();
    return Fail(absl::StrFormat("'%s'", sign));
  }

 private:
  std::vector<Token> tokens_;
  size_t next_ = 0;
};

}  // namespace gatehouse::jinja
