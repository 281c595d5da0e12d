// The expressions of Interpreter.
#include <algorithm>

#include "absl/strings/str_format.h"
#include "engine/chat_template/call.h"
#include "engine/chat_template/filters.h"
#include "engine/chat_template/functions.h"
#include "engine/chat_template/interpreter.h"
#include "engine/chat_template/operators.h"
#include "engine/chat_template/tests.h"
#include "kernels/base/status_macros.h"

namespace gatehouse::jinja {

absl::StatusOr<Value> Interpreter::Evaluate(const Expr& expr, const ScopePtr& scope) {
  GATEHOUSE_RETURN_IF_ERROR(Enter());
  absl::StatusOr<Value> value = EvaluateKind(expr, scope);
  Leave();
  if (!value.ok() && error_line_ == 0) error_line_ = expr.line;
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateKind(const Expr& expr, const ScopePtr& scope) {
  switch (expr.kind) {
    case Expr::Kind::kConstant:
      return expr.constant;
    case Expr::Kind::kName:
      return EvaluateName(expr.name, scope);
    case Expr::Kind::kList:
    case Expr::Kind::kTuple:
      return EvaluateItems(expr, scope);
    case Expr::Kind::kDict:
      return EvaluateDict(expr, scope);
    case Expr::Kind::kAttribute: {
      GATEHOUSE_ASSIGN_OR_RETURN(const Value value, Evaluate(*expr.args[0], scope));
      return GetAttribute(value, expr.name);
    }
    case Expr::Kind::kItem: {
      GATEHOUSE_ASSIGN_OR_RETURN(const Value value, Evaluate(*expr.args[0], scope));
      GATEHOUSE_ASSIGN_OR_RETURN(const Value key, Evaluate(*expr.args[1], scope));
      // Characters are found by counting.
      if (value.is_string()) GATEHOUSE_RETURN_IF_ERROR(ChargeBytes(value.bytes().size()));
      return GetItem(value, key);
    }
    case Expr::Kind::kSlice:
      return EvaluateSlice(expr, scope);
    case Expr::Kind::kCall:
      return EvaluateCall(expr, scope);
    case Expr::Kind::kFilter:
      return EvaluateFilter(expr, nullptr, scope);
    case Expr::Kind::kTest:
      return EvaluateTest(expr, scope);
    case Expr::Kind::kUnary:
      return EvaluateUnary(expr, scope);
    case Expr::Kind::kBinary:
      return EvaluateBinary(expr, scope);
    case Expr::Kind::kConcat:
      return EvaluateConcat(expr, scope);
    case Expr::Kind::kCompare:
      return EvaluateCompare(expr, scope);
    case Expr::Kind::kCondition: {
      GATEHOUSE_ASSIGN_OR_RETURN(const Value condition, Evaluate(*expr.args[1], scope));
      if (condition.IsTrue()) return Evaluate(*expr.args[0], scope);
      if (expr.args[2] != nullptr) return Evaluate(*expr.args[2], scope);
      return Value::MakeUndefined(
          "the inline if-expression evaluated to false and no else section was defined");
    }
  }
  return Value();
}

absl::StatusOr<Value> Interpreter::EvaluateName(const std::string& name, const ScopePtr& scope) {
  if (const Value* found = scope->Find(name)) return *found;
  if (const Value* found = variables_->Find(name)) return *found;
  if (const std::optional<std::string_view> function = FindFunction(name)) {
    return Value::MakeFunction({.name = *function});
  }
  return Value::MakeUndefined(absl::StrFormat("'%s' is undefined", name));
}

absl::StatusOr<Value> Interpreter::EvaluateItems(const Expr& expr, const ScopePtr& scope) {
  Sequence sequence;
  if (expr.kind == Expr::Kind::kTuple) sequence.type = Sequence::Type::kTuple;
  GATEHOUSE_RETURN_IF_ERROR(ChargeItems(expr.args.size()));
  for (const ExprPtr& arg : expr.args) {
    GATEHOUSE_ASSIGN_OR_RETURN(Value item, Evaluate(*arg, scope));
    sequence.items.push_back(std::move(item));
  }
  return Value::MakeSequence(std::move(sequence));
}

absl::StatusOr<Value> Interpreter::EvaluateDict(const Expr& expr, const ScopePtr& scope) {
  Dict dict;
  GATEHOUSE_RETURN_IF_ERROR(ChargeItems(expr.args.size()));
  for (size_t i = 0; i + 1 < expr.args.size(); i += 2) {
    GATEHOUSE_ASSIGN_OR_RETURN(const Value key, Evaluate(*expr.args[i], scope));
    GATEHOUSE_RETURN_IF_ERROR(CheckKey(key));
    GATEHOUSE_ASSIGN_OR_RETURN(Value value, Evaluate(*expr.args[i + 1], scope));
    dict.Set(key, std::move(value));
  }
  return Value::MakeDict(std::move(dict));
}

absl::StatusOr<Value> Interpreter::EvaluateSlice(const Expr& expr, const ScopePtr& scope) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Value value, Evaluate(*expr.args[0], scope));
  SliceBounds bounds;
  Value* const places[] = {&bounds.begin, &bounds.end, &bounds.step};
  for (size_t i = 0; i < 3; ++i) {
    if (expr.args[i + 1] == nullptr) continue;
    GATEHOUSE_ASSIGN_OR_RETURN(*places[i], Evaluate(*expr.args[i + 1], scope));
  }
  return GetSlice(*this, value, bounds);
}

absl::StatusOr<Value> Interpreter::EvaluateUnary(const Expr& expr, const ScopePtr& scope) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Value value, Evaluate(*expr.args[0], scope));
  if (expr.name == "not") return Value::MakeBool(!value.IsTrue());
  if (expr.name == "-") return Negate(value);
  if (const std::optional<int64_t> integer = value.AsInteger()) return Value::MakeInteger(*integer);
  if (value.AsNumber().has_value()) return value;
  return WrongType("+", value, "a number");
}

absl::StatusOr<Value> Interpreter::EvaluateBinary(const Expr& expr, const ScopePtr& scope) {
  GATEHOUSE_ASSIGN_OR_RETURN(Value left, Evaluate(*expr.args[0], scope));
  if (expr.name == "and" && !left.IsTrue()) return left;
  if (expr.name == "or" && left.IsTrue()) return left;
  GATEHOUSE_ASSIGN_OR_RETURN(Value right, Evaluate(*expr.args[1], scope));
  if (expr.name == "and" || expr.name == "or") return right;
  return Calculate(*this, expr.name, left, right);
}

absl::StatusOr<Value> Interpreter::EvaluateConcat(const Expr& expr, const ScopePtr& scope) {
  Text text;
  for (const ExprPtr& arg : expr.args) {
    GATEHOUSE_ASSIGN_OR_RETURN(const Value value, Evaluate(*arg, scope));
    GATEHOUSE_ASSIGN_OR_RETURN(const Text part, TextOf(*this, value));
    text.Append(part);
  }
  return Value::MakeString(std::move(text));
}

absl::StatusOr<Value> Interpreter::EvaluateCompare(const Expr& expr, const ScopePtr& scope) {
  GATEHOUSE_ASSIGN_OR_RETURN(Value left, Evaluate(*expr.args[0], scope));
  for (size_t i = 0; i < expr.signs.size(); ++i) {
    GATEHOUSE_ASSIGN_OR_RETURN(Value right, Evaluate(*expr.args[i + 1], scope));
    // A dictionary knows its keys; all else is gone through.
    const bool is_lookup = right.is_dict() && !left.is_dict();
    GATEHOUSE_RETURN_IF_ERROR(ChargeWalk(is_lookup ? left : right));
    GATEHOUSE_ASSIGN_OR_RETURN(const bool holds, Compare(expr.signs[i], left, right));
    if (!holds) return Value::MakeBool(false);
    left = std::move(right);
  }
  return Value::MakeBool(true);
}

absl::StatusOr<Arguments> Interpreter::EvaluateArguments(const Expr& expr, const ScopePtr& scope) {
  Arguments arguments;
  for (size_t i = 1; i < expr.args.size(); ++i) {
    GATEHOUSE_ASSIGN_OR_RETURN(Value value, Evaluate(*expr.args[i], scope));
    arguments.positional.push_back(std::move(value));
  }
  for (const auto& [name, arg] : expr.named) {
    GATEHOUSE_ASSIGN_OR_RETURN(Value value, Evaluate(*arg, scope));
    arguments.named.emplace_back(name, std::move(value));
  }
  return arguments;
}

// `input` stands for the argument that the innermost filter of a block has not.
absl::StatusOr<Value> Interpreter::EvaluateFilter(const Expr& expr, const Value* input,
                                                  const ScopePtr& scope) {
  Value value;
  if (expr.args[0] == nullptr) {
    value = *input;
  } else if (input != nullptr && expr.args[0]->kind == Expr::Kind::kFilter) {
    GATEHOUSE_ASSIGN_OR_RETURN(value, EvaluateFilter(*expr.args[0], input, scope));
  } else {
    GATEHOUSE_ASSIGN_OR_RETURN(value, Evaluate(*expr.args[0], scope));
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expr, scope));
  return CallFilter(*this, expr.name, value, arguments);
}

absl::StatusOr<Value> Interpreter::EvaluateTest(const Expr& expr, const ScopePtr& scope) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Value value, Evaluate(*expr.args[0], scope));
  GATEHOUSE_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expr, scope));
  for (const Value& operand : arguments.positional) {
    GATEHOUSE_RETURN_IF_ERROR(ChargeWalk(operand));
  }
  if (expr.name == "upper" || expr.name == "lower") GATEHOUSE_RETURN_IF_ERROR(ChargeWalk(value));
  GATEHOUSE_ASSIGN_OR_RETURN(const bool holds, CallTest(expr.name, value, arguments));
  return Value::MakeBool(holds);
}

absl::StatusOr<Value> Interpreter::EvaluateCall(const Expr& expr, const ScopePtr& scope) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Value callee, Evaluate(*expr.args[0], scope));
  GATEHOUSE_ASSIGN_OR_RETURN(Arguments arguments, EvaluateArguments(expr, scope));
  return Call(callee, std::move(arguments));
}

}  // namespace gatehouse::jinja
