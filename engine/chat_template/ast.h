// A parsed template: expressions and statements. Immutable once parsed; any thread.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/chat_template/value.h"

namespace gatehouse::jinja {

struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using StmtPtr = std::unique_ptr<Stmt>;
using Body = std::vector<StmtPtr>;

struct Expr {
  enum class Kind {
    kConstant,   // constant
    kName,       // name
    kList,       // args
    kTuple,      // args
    kDict,       // args: key, value, key, value
    kAttribute,  // args[0].name
    kItem,       // args[0][args[1]]
    kSlice,      // args[0][args[1]:args[2]:args[3]], null for what is left out
    kCall,       // args[0](args[1], ..., named)
    kFilter,     // args[0] | name(args[1], ..., named); args[0] is null in a block's filter
    kTest,       // args[0] is name(args[1], ...)
    kUnary,      // name: "-", "+", "not"
    kBinary,     // name: "+", "-", "*", "/", "//", "%", "**", "and", "or"
    kConcat,     // args joined as text (~)
    kCompare,    // args[0] signs[0] args[1] signs[1] args[2] ...
    kCondition,  // args[0] if args[1] else args[2]; args[2] may be null
  };
  Kind kind = Kind::kConstant;
  int line = 1;
  int depth = 1;  // of the tree below; limited by the parser
  std::string name;
  Value constant;
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> named;
  std::vector<std::string> signs;
};

// What is assigned to: names, or one attribute of a namespace.
struct Target {
  std::vector<std::string> names;  // more than one, or is_tuple: the value is unpacked
  bool is_tuple = false;
  std::string attribute;  // of the namespace names[0]; empty: none
};

struct Macro {
  std::string name;
  std::vector<std::string> params;
  std::vector<ExprPtr> defaults;  // of the last parameters
  Body body;
};

struct Stmt {
  enum class Kind {
    kData,      // text
    kPrint,     // expr
    kIf,        // expr, body, else_body (an elif is an if alone in it)
    kFor,       // for target in expr if condition: body else: else_body
    kSet,       // target = expr
    kSetBlock,  // target = body | expr (a filter without its first argument, or null)
    kWith,      // targets = values, body
    kFilter,    // body | expr
    kMacro,     // macro
    kScope,     // body in a scope of its own (generation)
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kData;
  int line = 1;
  std::string text;
  ExprPtr expr;
  ExprPtr condition;
  Target target;
  std::vector<std::pair<std::string, ExprPtr>> assignments;
  Body body;
  Body else_body;
  std::unique_ptr<Macro> macro;
};

}  // namespace gatehouse::jinja
