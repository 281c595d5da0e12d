#include "engine/chat_template/expression_parser.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>

#include "engine/chat_template/filters.h"
#include "engine/chat_template/tests.h"
#include "kernels/base/status_macros.h"

namespace gatehouse::jinja {
namespace {

// Deeper than any template; what the evaluator's stack is made for.
constexpr int kMaxDepth = 200;

std::optional<int64_t> ParseInteger(const std::string& text) {
  int base = 10;
  size_t begin = 0;
  if (text.size() > 1 && text[0] == '0') {
    const char kind = static_cast<char>(text[1] | 0x20);
    base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 10;
    if (base != 10) begin = 2;
  }
  int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [parsed, error] = std::from_chars(text.data() + begin, end, value, base);
  if (error != std::errc() || parsed != end) return std::nullopt;
  return value;
}

ExprPtr Constant(Value value, int line) {
  auto node = std::make_unique<Expr>();
  node->line = line;
  node->constant = std::move(value);
  return node;
}

}  // namespace

ExprPtr ExpressionParser::Make(Expr::Kind kind) const {
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->line = tokens_.line();
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::Finish(ExprPtr node) const {
  int depth = 0;
  for (const ExprPtr& arg : node->args) depth = std::max(depth, arg == nullptr ? 0 : arg->depth);
  for (const auto& [name, arg] : node->named) depth = std::max(depth, arg->depth);
  node->depth = depth + 1;
  if (node->depth > kMaxDepth) {
    return absl::InvalidArgumentError(
        absl::StrFormat("line %d: an expression is nested too deeply, expected at most %d levels",
                        node->line, kMaxDepth));
  }
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseExpression(bool with_condition) {
  if (nesting_ >= kMaxDepth) return tokens_.Fail("an expression nested less deeply");
  ++nesting_;
  absl::StatusOr<ExprPtr> node = ParseOr();
  while (node.ok() && with_condition && tokens_.SkipName("if")) {
    ExprPtr condition = Make(Expr::Kind::kCondition);
    condition->args.push_back(*std::move(node));
    GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr test, ParseOr());
    condition->args.push_back(std::move(test));
    ExprPtr otherwise;
    if (tokens_.SkipName("else")) {
      GATEHOUSE_ASSIGN_OR_RETURN(otherwise, ParseExpression());
    }
    condition->args.push_back(std::move(otherwise));
    node = Finish(std::move(condition));
  }
  --nesting_;
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseOr() {
  GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr left, ParseAnd());
  while (tokens_.current().IsName("or")) {
    ExprPtr node = Make(Expr::Kind::kBinary);
    node->name = "or";
    tokens_.Advance();
    GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr right, ParseAnd());
    node->args.push_back(std::move(left));
    node->args.push_back(std::move(right));
    GATEHOUSE_ASSIGN_OR_RETURN(left, Finish(std::move(node)));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseAnd() {
  GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr left, ParseNot());
  while (tokens_.current().IsName("and")) {
    ExprPtr node = Make(Expr::Kind::kBinary);
    node->name = "and";
    tokens_.Advance();
    GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr right, ParseNot());
    node->args.push_back(std::move(left));
    node->args.push_back(std::move(right));
    GATEHOUSE_ASSIGN_OR_RETURN(left, Finish(std::move(node)));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseNot() {
  int num_nots = 0;
  const int line = tokens_.line();
  while (tokens_.SkipName("not")) ++num_nots;
  GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr node, ParseCompare());
  for (; num_nots > 0; --num_nots) {
    ExprPtr negated = Make(Expr::Kind::kUnary);
    negated->line = line;
    negated->name = "not";
    negated->args.push_back(std::move(node));
    GATEHOUSE_ASSIGN_OR_RETURN(node, Finish(std::move(negated)));
  }
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseCompare() {
  GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr first, ParseSum());
  ExprPtr node = Make(Expr::Kind::kCompare);
  while (true) {
    std::string sign;
    for (const std::string_view each : {"==", "!=", "<", "<=", ">", ">="}) {
      if (tokens_.current().IsOperator(each)) sign = each;
    }
    if (tokens_.current().IsName("in")) sign = "in";
    if (tokens_.current().IsName("not") && tokens_.following().IsName("in")) {
      sign = "not in";
      tokens_.Advance();
    }
    if (sign.empty()) break;
    tokens_.Advance();
    GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr operand, ParseSum());
    if (node->args.empty()) node->args.push_back(std::move(first));
    node->args.push_back(std::move(operand));
    node->signs.push_back(std::move(sign));
  }
  if (node->args.empty()) return first;
  return Finish(std::move(node));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseBinary(
    Parse operand, std::initializer_list<std::string_view> signs) {
  GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr left, (this->*operand)());
  while (true) {
    const auto sign = std::find_if(signs.begin(), signs.end(), [this](std::string_view each) {
      return tokens_.current().IsOperator(each);
    });
    if (sign == signs.end()) return left;
    ExprPtr node = Make(Expr::Kind::kBinary);
    node->name = *sign;
    tokens_.Advance();
    GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr right, (this->*operand)());
    node->args.push_back(std::move(left));
    node->args.push_back(std::move(right));
    GATEHOUSE_ASSIGN_OR_RETURN(left, Finish(std::move(node)));
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseSum() {
  return ParseBinary(&ExpressionParser::ParseConcat, {"+", "-"});
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseConcat() {
  ExprPtr node = Make(Expr::Kind::kConcat);
  do {
    GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr part, ParseProduct());
    node->args.push_back(std::move(part));
  } while (tokens_.SkipOperator("~"));
  if (node->args.size() == 1) return std::move(node->args[0]);
  return Finish(std::move(node));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseProduct() {
  return ParseBinary(&ExpressionParser::ParsePower, {"*", "/", "//", "%"});
}

absl::StatusOr<ExprPtr> ExpressionParser::ParsePower() {
  GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr left, ParseUnary(true));
  while (tokens_.current().IsOperator("**")) {
    ExprPtr node = Make(Expr::Kind::kBinary);
    node->name = "**";
    tokens_.Advance();
    GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr right, ParseUnary(true));
    node->args.push_back(std::move(left));
    node->args.push_back(std::move(right));
    GATEHOUSE_ASSIGN_OR_RETURN(left, Finish(std::move(node)));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseUnary(bool with_filter) {
  if (nesting_ >= kMaxDepth) return tokens_.Fail("an expression nested less deeply");
  ExprPtr node;
  const bool minus = tokens_.current().IsOperator("-");
  if (minus || tokens_.current().IsOperator("+")) {
    ExprPtr unary = Make(Expr::Kind::kUnary);
    unary->name = minus ? "-" : "+";
    tokens_.Advance();
    ++nesting_;
    GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr operand, ParseUnary(false));
    --nesting_;
    unary->args.push_back(std::move(operand));
    GATEHOUSE_ASSIGN_OR_RETURN(node, Finish(std::move(unary)));
  } else {
    GATEHOUSE_ASSIGN_OR_RETURN(node, ParsePrimary());
  }
  GATEHOUSE_ASSIGN_OR_RETURN(node, ParsePostfix(std::move(node)));
  if (!with_filter) return node;
  return ParseFiltersAndTests(std::move(node));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParsePrimary() {
  const Token token = tokens_.current();
  switch (token.kind) {
    case Token::Kind::kName: {
      ExprPtr node = Make(Expr::Kind::kName);
      tokens_.Advance();
      if (token.text == "true" || token.text == "True") {
        return Constant(Value::MakeBool(true), token.line);
      }
      if (token.text == "false" || token.text == "False") {
        return Constant(Value::MakeBool(false), token.line);
      }
      if (token.text == "none" || token.text == "None") {
        return Constant(Value::MakeNone(), token.line);
      }
      node->name = token.text;
      return node;
    }
    case Token::Kind::kString: {
      std::string text;
      while (tokens_.current().kind == Token::Kind::kString) {
        text += tokens_.current().text;
        tokens_.Advance();
      }
      return Constant(Value::MakeString(std::move(text)), token.line);
    }
    case Token::Kind::kInteger: {
      const std::optional<int64_t> value = ParseInteger(token.text);
      if (!value.has_value()) return tokens_.Fail("an integer of 64 bits");
      tokens_.Advance();
      return Constant(Value::MakeInteger(*value), token.line);
    }
    case Token::Kind::kFloat:
      tokens_.Advance();
      return Constant(Value::MakeFloat(std::strtod(token.text.c_str(), nullptr)), token.line);
    default:
      if (token.IsOperator("(")) return ParseParentheses();
      if (token.IsOperator("[")) return ParseList();
      if (token.IsOperator("{")) return ParseDict();
      return tokens_.Fail("an expression");
  }
}

bool ExpressionParser::AtTupleEnd(std::string_view end_name) const {
  const Token& token = tokens_.current();
  return token.kind == Token::Kind::kVariableEnd || token.kind == Token::Kind::kBlockEnd ||
         token.IsOperator(")") || (!end_name.empty() && token.IsName(end_name));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseTuple(bool with_condition,
                                                     std::string_view end_name) {
  ExprPtr tuple = Make(Expr::Kind::kTuple);
  bool is_tuple = false;
  while (true) {
    if (!tuple->args.empty() && AtTupleEnd(end_name)) break;
    GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr item, ParseExpression(with_condition));
    tuple->args.push_back(std::move(item));
    if (!tokens_.SkipOperator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) return std::move(tuple->args[0]);
  return Finish(std::move(tuple));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseParentheses() {
  tokens_.Advance();
  if (tokens_.SkipOperator(")")) return Make(Expr::Kind::kTuple);
  GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr node, ParseTuple());
  GATEHOUSE_RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseList() {
  ExprPtr list = Make(Expr::Kind::kList);
  tokens_.Advance();
  while (!tokens_.current().IsOperator("]")) {
    GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr item, ParseExpression());
    list->args.push_back(std::move(item));
    if (!tokens_.SkipOperator(",")) break;
  }
  GATEHOUSE_RETURN_IF_ERROR(tokens_.ExpectOperator("]"));
  return Finish(std::move(list));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseDict() {
  ExprPtr dict = Make(Expr::Kind::kDict);
  tokens_.Advance();
  while (!tokens_.current().IsOperator("}")) {
    GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr key, ParseExpression());
    GATEHOUSE_RETURN_IF_ERROR(tokens_.ExpectOperator(":"));
    GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
    dict->args.push_back(std::move(key));
    dict->args.push_back(std::move(value));
    if (!tokens_.SkipOperator(",")) break;
  }
  GATEHOUSE_RETURN_IF_ERROR(tokens_.ExpectOperator("}"));
  return Finish(std::move(dict));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParsePostfix(ExprPtr node) {
  while (true) {
    if (tokens_.current().IsOperator(".") || tokens_.current().IsOperator("[")) {
      GATEHOUSE_ASSIGN_OR_RETURN(node, ParseSubscript(std::move(node)));
    } else if (tokens_.current().IsOperator("(")) {
      ExprPtr call = Make(Expr::Kind::kCall);
      call->args.push_back(std::move(node));
      GATEHOUSE_RETURN_IF_ERROR(ParseArguments(call.get()));
      GATEHOUSE_ASSIGN_OR_RETURN(node, Finish(std::move(call)));
    } else {
      return node;
    }
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseFiltersAndTests(ExprPtr node) {
  while (true) {
    if (tokens_.SkipOperator("|")) {
      GATEHOUSE_ASSIGN_OR_RETURN(node, ParseFilter(std::move(node)));
    } else if (tokens_.SkipName("is")) {
      GATEHOUSE_ASSIGN_OR_RETURN(node, ParseTest(std::move(node)));
    } else if (tokens_.current().IsOperator("(")) {
      GATEHOUSE_ASSIGN_OR_RETURN(node, ParsePostfix(std::move(node)));
    } else {
      return node;
    }
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseSubscript(ExprPtr node) {
  ExprPtr item = Make(Expr::Kind::kItem);
  item->args.push_back(std::move(node));
  if (tokens_.SkipOperator(".")) {
    const Token token = tokens_.current();
    if (token.kind == Token::Kind::kName) {
      item->kind = Expr::Kind::kAttribute;
      item->name = token.text;
      tokens_.Advance();
      return Finish(std::move(item));
    }
    if (token.kind != Token::Kind::kInteger) return tokens_.Fail("a name or a number");
    GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr index, ParsePrimary());
    item->args.push_back(std::move(index));
    return Finish(std::move(item));
  }
  tokens_.Advance();
  ExprPtr bounds[3];
  int num_colons = 0;
  while (!tokens_.current().IsOperator("]")) {
    if (tokens_.current().IsOperator(":") && num_colons < 2) {
      ++num_colons;
      tokens_.Advance();
    } else if (bounds[num_colons] == nullptr) {
      GATEHOUSE_ASSIGN_OR_RETURN(bounds[num_colons], ParseExpression());
    } else {
      return tokens_.Fail("']'");
    }
  }
  if (num_colons == 0 && bounds[0] == nullptr) return tokens_.Fail("an expression");
  tokens_.Advance();
  if (num_colons > 0) item->kind = Expr::Kind::kSlice;
  for (int i = 0; i < (num_colons > 0 ? 3 : 1); ++i) item->args.push_back(std::move(bounds[i]));
  return Finish(std::move(item));
}

absl::Status ExpressionParser::ParseArguments(Expr* call) {
  GATEHOUSE_RETURN_IF_ERROR(tokens_.ExpectOperator("("));
  while (!tokens_.current().IsOperator(")")) {
    if (tokens_.current().kind == Token::Kind::kName && tokens_.following().IsOperator("=")) {
      std::string name = tokens_.current().text;
      tokens_.Advance();
      tokens_.Advance();
      GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
      call->named.emplace_back(std::move(name), std::move(value));
    } else {
      if (!call->named.empty()) return tokens_.Fail("an argument with a name");
      GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
      call->args.push_back(std::move(value));
    }
    if (!tokens_.SkipOperator(",")) break;
  }
  return tokens_.ExpectOperator(")");
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseFilter(ExprPtr node) {
  ExprPtr filter = Make(Expr::Kind::kFilter);
  filter->name = tokens_.current().text;
  if (tokens_.current().kind != Token::Kind::kName || !IsFilter(filter->name)) {
    return tokens_.Fail("the name of a filter");
  }
  tokens_.Advance();
  filter->args.push_back(std::move(node));
  if (tokens_.current().IsOperator("(")) {
    GATEHOUSE_RETURN_IF_ERROR(ParseArguments(filter.get()));
  }
  return Finish(std::move(filter));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseBlockFilter() {
  GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr filter, ParseFilter(nullptr));
  while (tokens_.SkipOperator("|")) {
    GATEHOUSE_ASSIGN_OR_RETURN(filter, ParseFilter(std::move(filter)));
  }
  return filter;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseTest(ExprPtr node) {
  const bool negated = tokens_.SkipName("not");
  ExprPtr test = Make(Expr::Kind::kTest);
  test->name = tokens_.current().text;
  if (tokens_.current().kind != Token::Kind::kName || !IsTest(test->name)) {
    return tokens_.Fail("the name of a test");
  }
  tokens_.Advance();
  test->args.push_back(std::move(node));
  const Token& token = tokens_.current();
  const bool takes_operand =
      token.kind == Token::Kind::kString || token.kind == Token::Kind::kInteger ||
      token.kind == Token::Kind::kFloat || token.IsOperator("[") || token.IsOperator("{") ||
      (token.kind == Token::Kind::kName && !token.IsName("else") && !token.IsName("or") &&
       !token.IsName("and"));
  if (token.IsOperator("(")) {
    GATEHOUSE_RETURN_IF_ERROR(ParseArguments(test.get()));
  } else if (takes_operand) {
    if (token.IsName("is")) return tokens_.Fail("one test, for tests cannot be chained");
    GATEHOUSE_ASSIGN_OR_RETURN(ExprPtr operand, ParsePrimary());
    GATEHOUSE_ASSIGN_OR_RETURN(operand, ParsePostfix(std::move(operand)));
    test->args.push_back(std::move(operand));
  }
  GATEHOUSE_ASSIGN_OR_RETURN(test, Finish(std::move(test)));
  if (!negated) return test;
  ExprPtr no = Make(Expr::Kind::kUnary);
  no->name = "not";
  no->args.push_back(std::move(test));
  return Finish(std::move(no));
}

}  // namespace gatehouse::jinja
