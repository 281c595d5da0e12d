// Expressions of a template, by jinja2's precedence. Used by the statement parser.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/chat_template/ast.h"
#include "engine/chat_template/token_stream.h"

namespace gatehouse::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}

  absl::StatusOr<ExprPtr> ParseExpression(bool with_condition = true);
  // One expression, or several with commas: a tuple. Ends before the name `end_name` if not empty.
  absl::StatusOr<ExprPtr> ParseTuple(bool with_condition = true, std::string_view end_name = "");
  // "name(args) | name ..." of a block; the innermost filter's args[0] is null.
  absl::StatusOr<ExprPtr> ParseBlockFilter();

 private:
  using Parse = absl::StatusOr<ExprPtr> (ExpressionParser::*)();

  absl::StatusOr<ExprPtr> ParseOr();
  absl::StatusOr<ExprPtr> ParseAnd();
  absl::StatusOr<ExprPtr> ParseNot();
  absl::StatusOr<ExprPtr> ParseCompare();
  absl::StatusOr<ExprPtr> ParseSum();
  absl::StatusOr<ExprPtr> ParseConcat();
  absl::StatusOr<ExprPtr> ParseProduct();
  absl::StatusOr<ExprPtr> ParsePower();
  absl::StatusOr<ExprPtr> ParseUnary(bool with_filter);
  absl::StatusOr<ExprPtr> ParsePrimary();
  absl::StatusOr<ExprPtr> ParseParentheses();
  absl::StatusOr<ExprPtr> ParseList();
  absl::StatusOr<ExprPtr> ParseDict();
  absl::StatusOr<ExprPtr> ParsePostfix(ExprPtr node);
  absl::StatusOr<ExprPtr> ParseFiltersAndTests(ExprPtr node);
  absl::StatusOr<ExprPtr> ParseSubscript(ExprPtr node);
  absl::StatusOr<ExprPtr> ParseFilter(ExprPtr node);
  absl::StatusOr<ExprPtr> ParseTest(ExprPtr node);
  absl::Status ParseArguments(Expr* call);
  absl::StatusOr<ExprPtr> ParseBinary(Parse operand, std::initializer_list<std::string_view> signs);
  bool AtTupleEnd(std::string_view end_name) const;
  // Counts the depth of the finished node.
  absl::StatusOr<ExprPtr> Finish(ExprPtr node) const;
  ExprPtr Make(Expr::Kind kind) const;

  TokenStream& tokens_;
  int nesting_ = 0;
};

}  // namespace gatehouse::jinja
