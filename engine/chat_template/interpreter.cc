#include "engine/chat_template/interpreter.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "engine/chat_template/filters.h"
#include "engine/chat_template/functions.h"
#include "engine/chat_template/methods.h"
#include "engine/chat_template/operators.h"
#include "engine/chat_template/tests.h"
#include "kernels/base/status_macros.h"

namespace gatehouse::jinja {

const Value* Scope::Find(std::string_view name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent.get()) {
    for (const auto& [each, value] : scope->variables) {
      if (each == name) return &value;
    }
  }
  return nullptr;
}

void Scope::Set(std::string_view name, Value value) {
  for (auto& [each, old] : variables) {
    if (each != name) continue;
    old = std::move(value);
    return;
  }
  variables.emplace_back(std::string(name), std::move(value));
}

Interpreter::~Interpreter() {
  for (const std::shared_ptr<Namespace>& space : namespaces_) space->attributes = Dict();
}

absl::Status Interpreter::Charge(int64_t num_steps) {
  num_steps_ += num_steps;
  if (num_steps_ <= limits_.max_steps) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("the template takes more than %d steps", limits_.max_steps));
}

absl::Status Interpreter::ChargeWalk(const Value& value) {
  GATEHOUSE_RETURN_IF_ERROR(Charge(1));
  if (value.is_string()) return ChargeBytes(value.bytes().size());
  if (value.is_dict()) {
    for (const auto& [key, item] : value.dict().entries()) {
      GATEHOUSE_RETURN_IF_ERROR(ChargeWalk(key));
      GATEHOUSE_RETURN_IF_ERROR(ChargeWalk(item));
    }
  } else if (const Sequence* sequence = value.sequence()) {
    for (const Value& item : sequence->items) GATEHOUSE_RETURN_IF_ERROR(ChargeWalk(item));
  }
  return absl::OkStatus();
}

absl::Status Interpreter::CheckOutput(size_t num_bytes) const {
  if (num_bytes <= limits_.max_output_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("the template writes more than %d bytes", limits_.max_output_bytes));
}

absl::Status Interpreter::Enter() {
  if (depth_ >= limits_.max_depth) {
    return absl::InvalidArgumentError(
        absl::StrFormat("the template calls itself or nests deeper than %d", limits_.max_depth));
  }
  ++depth_;
  return Charge(1);
}

absl::Status Interpreter::Raise(const std::string& message) {
  raised_ = true;
  return absl::InvalidArgumentError(message);
}

absl::StatusOr<Value> Interpreter::MakeNamespace(const Dict& attributes) {
  GATEHOUSE_RETURN_IF_ERROR(ChargeItems(8 + attributes.size()));
  namespaces_.push_back(std::make_shared<Namespace>(Namespace{attributes}));
  return Value::MakeNamespace(namespaces_.back());
}

absl::StatusOr<std::vector<Value>> Interpreter::Items(const Value& value) {
  if (value.is_string()) GATEHOUSE_RETURN_IF_ERROR(ChargeItems(value.bytes().size()));
  GATEHOUSE_ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(value));
  GATEHOUSE_RETURN_IF_ERROR(ChargeItems(items.size()));
  return items;
}

absl::StatusOr<Text> Interpreter::Run(const Body& body, const Dict& variables) {
  variables_ = &variables;
  const auto scope = std::make_shared<Scope>();
  Text out;
  const absl::StatusOr<Flow> flow = RunBody(body, scope, &out);
  if (flow.ok()) return out;
  if (raised_ || error_line_ == 0) return flow.status();
  return absl::InvalidArgumentError(
      absl::StrFormat("line %d: %s", error_line_, std::string(flow.status().message())));
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunBody(const Body& body, const ScopePtr& scope,
                                                       Text* out) {
  for (const StmtPtr& stmt : body) {
    GATEHOUSE_RETURN_IF_ERROR(Enter());
    absl::StatusOr<Flow> flow = RunStatement(*stmt, scope, out);
    Leave();
    if (!flow.ok() && error_line_ == 0) error_line_ = stmt->line;
    if (!flow.ok() || *flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunStatement(const Stmt& stmt, const ScopePtr& scope,
                                                            Text* out) {
  switch (stmt.kind) {
    case Stmt::Kind::kData:
      GATEHOUSE_RETURN_IF_ERROR(Append(Text(stmt.text), out));
      return Flow::kNormal;
    case Stmt::Kind::kPrint:
      GATEHOUSE_RETURN_IF_ERROR(RunPrint(stmt, scope, out));
      return Flow::kNormal;
    case Stmt::Kind::kIf: {
      GATEHOUSE_ASSIGN_OR_RETURN(const Value condition, Evaluate(*stmt.expr, scope));
      return RunBody(condition.IsTrue() ? stmt.body : stmt.else_body, scope, out);
    }
    case Stmt::Kind::kFor:
      return RunFor(stmt, scope, out);
    case Stmt::Kind::kSet:
    case Stmt::Kind::kSetBlock:
      GATEHOUSE_RETURN_IF_ERROR(RunSet(stmt, scope));
      return Flow::kNormal;
    case Stmt::Kind::kWith:
      return RunWith(stmt, scope, out);
    case Stmt::Kind::kFilter: {
      GATEHOUSE_ASSIGN_OR_RETURN(const Value filtered, RunFiltered(stmt, scope));
      GATEHOUSE_ASSIGN_OR_RETURN(const Text text, filtered.ToText());
      GATEHOUSE_RETURN_IF_ERROR(Append(text, out));
      return Flow::kNormal;
    }
    case Stmt::Kind::kMacro:
      scope->Set(stmt.macro->name, Value::MakeFunction({.name = stmt.macro->name,
                                                        .self = std::nullopt,
                                                        .macro = stmt.macro.get(),
                                                        .scope = scope}));
      return Flow::kNormal;
    case Stmt::Kind::kScope:
      return RunBody(stmt.body, std::make_shared<Scope>(Scope{scope, {}}), out);
    case Stmt::Kind::kBreak:
      return Flow::kBreak;
    case Stmt::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

absl::Status Interpreter::Append(const Text& text, Text* out) {
  GATEHOUSE_RETURN_IF_ERROR(ChargeBytes(text.size()));
  GATEHOUSE_RETURN_IF_ERROR(CheckOutput(out->size() + text.size()));
  out->Append(text);
  return absl::OkStatus();
}

absl::Status Interpreter::RunPrint(const Stmt& stmt, const ScopePtr& scope, Text* out) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Value value, Evaluate(*stmt.expr, scope));
  if (value.is_string()) return Append(value.text(), out);
  GATEHOUSE_ASSIGN_OR_RETURN(const Text text, value.ToText());
  return Append(text, out);
}

// A value for each pass, and what the loop's own condition leaves of them.
absl::StatusOr<std::vector<Value>> Interpreter::LoopItems(const Stmt& stmt, const ScopePtr& scope) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Value over, Evaluate(*stmt.expr, scope));
  GATEHOUSE_ASSIGN_OR_RETURN(std::vector<Value> items, Items(over));
  if (stmt.condition == nullptr) return items;
  std::vector<Value> kept;
  for (Value& item : items) {
    const auto inner = std::make_shared<Scope>(Scope{scope, {}});
    GATEHOUSE_RETURN_IF_ERROR(Assign(stmt.target, item, inner));
    GATEHOUSE_ASSIGN_OR_RETURN(const Value condition, Evaluate(*stmt.condition, inner));
    if (condition.IsTrue()) kept.push_back(std::move(item));
  }
  return kept;
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunFor(const Stmt& stmt, const ScopePtr& scope,
                                                      Text* out) {
  GATEHOUSE_ASSIGN_OR_RETURN(std::vector<Value> items, LoopItems(stmt, scope));
  auto state = std::make_shared<LoopState>();
  state->items = std::move(items);
  GATEHOUSE_ASSIGN_OR_RETURN(const Value loop, Value::MakeLoop(state));
  const auto num_items = static_cast<int64_t>(state->items.size());
  // Not the items: in jinja2 a pass that `continue` cuts short does not count against the else.
  bool any_complete = false;
  for (state->idx = 0; state->idx < num_items; ++state->idx) {
    const auto inner = std::make_shared<Scope>(Scope{scope, {}});
    inner->Set("loop", loop);
    GATEHOUSE_RETURN_IF_ERROR(
        Assign(stmt.target, state->items[static_cast<size_t>(state->idx)], inner));
    GATEHOUSE_RETURN_IF_ERROR(Charge(1));
    GATEHOUSE_ASSIGN_OR_RETURN(const Flow flow, RunBody(stmt.body, inner, out));
    if (flow == Flow::kBreak) break;
    any_complete = any_complete || flow == Flow::kNormal;
  }
  if (!any_complete) {
    return RunBody(stmt.else_body, std::make_shared<Scope>(Scope{scope, {}}), out);
  }
  return Flow::kNormal;
}

absl::StatusOr<Text> Interpreter::RunToText(const Body& body, const ScopePtr& scope) {
  Text text;
  // A break cannot leave the block: the parser only knows loops around it, and jinja2 fails, too.
  GATEHOUSE_ASSIGN_OR_RETURN(const Flow flow,
                             RunBody(body, std::make_shared<Scope>(Scope{scope, {}}), &text));
  if (flow != Flow::kNormal) {
    return absl::InvalidArgumentError("'break' or 'continue' leaves a block that makes a value");
  }
  return text;
}

absl::StatusOr<Value> Interpreter::RunFiltered(const Stmt& stmt, const ScopePtr& scope) {
  GATEHOUSE_ASSIGN_OR_RETURN(Text text, RunToText(stmt.body, scope));
  const Value value = Value::MakeString(std::move(text));
  if (stmt.expr == nullptr) return value;
  return EvaluateFilter(*stmt.expr, &value, scope);
}

absl::Status Interpreter::RunSet(const Stmt& stmt, const ScopePtr& scope) {
  if (stmt.kind == Stmt::Kind::kSet) {
    GATEHOUSE_ASSIGN_OR_RETURN(Value value, Evaluate(*stmt.expr, scope));
    return Assign(stmt.target, std::move(value), scope);
  }
  GATEHOUSE_ASSIGN_OR_RETURN(Value value, RunFiltered(stmt, scope));
  return Assign(stmt.target, std::move(value), scope);
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunWith(const Stmt& stmt, const ScopePtr& scope,
                                                       Text* out) {
  const auto inner = std::make_shared<Scope>(Scope{scope, {}});
  for (const auto& [name, expr] : stmt.assignments) {
    GATEHOUSE_ASSIGN_OR_RETURN(Value value, Evaluate(*expr, scope));
    inner->Set(name, std::move(value));
  }
  return RunBody(stmt.body, inner, out);
}

absl::Status Interpreter::Assign(const Target& target, Value value, const ScopePtr& scope) {
  if (!target.attribute.empty()) {
    const Value* space = scope->Find(target.names[0]);
    if (space == nullptr || space->space() == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrFormat("cannot assign attribute on non-namespace object '%s'", target.names[0]));
    }
    if (target.attribute[0] == '_') {
      return absl::InvalidArgumentError(
          absl::StrFormat("attribute '%s' begins with an underscore", target.attribute));
    }
    space->space()->attributes.Set(target.attribute, std::move(value));
    return absl::OkStatus();
  }
  if (!target.is_tuple) {
    scope->Set(target.names[0], std::move(value));
    return absl::OkStatus();
  }
  if (value.is_undefined()) return absl::InvalidArgumentError(value.undefined_reason());
  GATEHOUSE_ASSIGN_OR_RETURN(std::vector<Value> items, Items(value));
  if (items.size() != target.names.size()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("got %d values to unpack, expected %d", items.size(), target.names.size()));
  }
  for (size_t i = 0; i < items.size(); ++i) scope->Set(target.names[i], std::move(items[i]));
  return absl::OkStatus();
}

absl::StatusOr<Value> Interpreter::Call(const Value& callee, Arguments arguments) {
  const Function* const function = callee.function();
  if (function == nullptr) {
    if (callee.is_undefined()) return absl::InvalidArgumentError(callee.undefined_reason());
    return absl::InvalidArgumentError(
        absl::StrFormat("a value of type %s cannot be called", callee.TypeName()));
  }
  if (function->macro != nullptr) return CallMacro(*function, std::move(arguments));
  if (function->self.has_value()) {
    return CallMethod(*this, *function->self, function->name, arguments);
  }
  return CallFunction(*this, function->name, arguments);
}

absl::StatusOr<Value> Interpreter::CallMacro(const Function& function, Arguments arguments) {
  const Macro& macro = *function.macro;
  const ScopePtr around = function.scope.lock();
  if (around == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrFormat("macro '%s' is called outside of the block that defines it", macro.name));
  }
  if (arguments.positional.size() > macro.params.size()) {
    return absl::InvalidArgumentError(absl::StrFormat("macro '%s' takes not more than %d arguments",
                                                      macro.name, macro.params.size()));
  }
  const auto scope = std::make_shared<Scope>(Scope{around, {}});
  const size_t num_required = macro.params.size() - macro.defaults.size();
  for (size_t i = 0; i < macro.params.size(); ++i) {
    const std::string& name = macro.params[i];
    const auto named = std::find_if(arguments.named.begin(), arguments.named.end(),
                                    [&name](const auto& each) { return each.first == name; });
    Value value = Value::MakeUndefined(absl::StrFormat("parameter '%s' was not provided", name));
    if (i < arguments.positional.size()) {
      value = arguments.positional[i];
    } else if (named != arguments.named.end()) {
      value = named->second;
      arguments.named.erase(named);
    } else if (i >= num_required) {
      GATEHOUSE_ASSIGN_OR_RETURN(value, Evaluate(*macro.defaults[i - num_required], scope));
    }
    scope->Set(name, std::move(value));
  }
  if (!arguments.named.empty()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("macro '%s' takes no argument '%s'", macro.name, arguments.named[0].first));
  }
  Text text;
  GATEHOUSE_ASSIGN_OR_RETURN(const Flow flow, RunBody(macro.body, scope, &text));
  static_cast<void>(flow);  // the parser lets no break out of a macro
  return Value::MakeString(std::move(text));
}

}  // namespace gatehouse::jinja
