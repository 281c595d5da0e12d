// Runs a parsed template once: statements to text, expressions to values, with jinja2's scopes and
// the limits that keep a hostile template or chat from holding a thread. One thread; dies with the
// rendering.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/chat_template/ast.h"
#include "engine/chat_template/value.h"

namespace gatehouse::jinja {

struct RenderLimits {
  // Evaluated nodes, and copied items and bytes at the rates below. The most is a second or so of
  // work and 100 MB of values; a chat of 1,000 turns takes about 200,000.
  int64_t max_steps = 5'000'000;
  size_t max_output_bytes = size_t{16} << 20;
  // Expressions and blocks within each other, macro calls counted. A level takes some 2 KiB of the
  // stack, under AddressSanitizer five times that.
  int max_depth = 400;
};

inline constexpr int64_t kBytesPerStep = 16;
inline constexpr int64_t kStepsPerItem = 4;

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string, Value>> variables;

  const Value* Find(std::string_view name) const;  // here or around
  void Set(std::string_view name, Value value);    // here
};

class Interpreter {
 public:
  // `unix_seconds` is what strftime_now shows, in local time.
  Interpreter(const RenderLimits& limits, int64_t unix_seconds)
      : limits_(limits), unix_seconds_(unix_seconds) {}
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // INVALID_ARGUMENT: what raise_exception was given, or "line <n>: <problem>". Once.
  absl::StatusOr<Text> Run(const Body& body, const Dict& variables);

  // For built-ins.
  absl::Status Charge(int64_t num_steps);
  absl::Status ChargeBytes(size_t num_bytes) {
    return Charge(static_cast<int64_t>(num_bytes) / kBytesPerStep);
  }
  absl::Status ChargeItems(size_t num_items) {
    return Charge(static_cast<int64_t>(num_items) * kStepsPerItem);
  }
  // For all that comparing with `value`, or looking for something in it, may touch.
  absl::Status ChargeWalk(const Value& value);
  // INVALID_ARGUMENT for more than a template may write.
  absl::Status CheckOutput(size_t num_bytes) const;
  absl::StatusOr<Value> MakeNamespace(const Dict& attributes);
  absl::Status Raise(const std::string& message);  // raise_exception
  int64_t unix_seconds() const { return unix_seconds_; }
  // Iterate, charged.
  absl::StatusOr<std::vector<Value>> Items(const Value& value);

 private:
  enum class Flow { kNormal, kBreak, kContinue };
  using ScopePtr = std::shared_ptr<Scope>;

  absl::StatusOr<Flow> RunBody(const Body& body, const ScopePtr& scope, Text* out);
  absl::StatusOr<Flow> RunStatement(const Stmt& stmt, const ScopePtr& scope, Text* out);
  absl::StatusOr<Flow> RunFor(const Stmt& stmt, const ScopePtr& scope, Text* out);
  absl::StatusOr<std::vector<Value>> LoopItems(const Stmt& stmt, const ScopePtr& scope);
  absl::Status RunSet(const Stmt& stmt, const ScopePtr& scope);
  absl::Status RunPrint(const Stmt& stmt, const ScopePtr& scope, Text* out);
  absl::StatusOr<Flow> RunWith(const Stmt& stmt, const ScopePtr& scope, Text* out);
  absl::StatusOr<Text> RunToText(const Body& body, const ScopePtr& scope);
  absl::StatusOr<Value> RunFiltered(const Stmt& stmt, const ScopePtr& scope);
  absl::Status Assign(const Target& target, Value value, const ScopePtr& scope);
  absl::Status Append(const Text& text, Text* out);

  absl::StatusOr<Value> Evaluate(const Expr& expr, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateKind(const Expr& expr, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateName(const std::string& name, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateItems(const Expr& expr, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateDict(const Expr& expr, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateSlice(const Expr& expr, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateUnary(const Expr& expr, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateBinary(const Expr& expr, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateConcat(const Expr& expr, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateCompare(const Expr& expr, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateFilter(const Expr& expr, const Value* input, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateTest(const Expr& expr, const ScopePtr& scope);
  absl::StatusOr<Value> EvaluateCall(const Expr& expr, const ScopePtr& scope);
  absl::StatusOr<Arguments> EvaluateArguments(const Expr& expr, const ScopePtr& scope);
  absl::StatusOr<Value> Call(const Value& callee, Arguments arguments);
  absl::StatusOr<Value> CallMacro(const Function& function, Arguments arguments);
  absl::Status Enter();
  void Leave() { --depth_; }

  const RenderLimits limits_;
  const int64_t unix_seconds_;
  // Of the rendering, behind all scopes: a dictionary, for a client may send many.
  const Dict* variables_ = nullptr;
  int64_t num_steps_ = 0;
  int depth_ = 0;
  int error_line_ = 0;  // where the first error came from
  bool raised_ = false;
  // All of them: they can hold each other, which reference counts alone would never free.
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

}  // namespace gatehouse::jinja
