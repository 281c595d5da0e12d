// A value of a template, with Python's types and rules: what it prints, what is true, what equals
// what. Cheap to copy: strings and containers are shared and never change, but for namespaces and
// iterators, which belong to one rendering. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/chat_template/text.h"

namespace gatehouse::jinja {

class Value;
class Dict;
struct Function;
struct Iterator;
struct LoopState;
struct Namespace;
struct Sequence;

struct Undefined {
  std::string reason;  // "'x' is undefined"
};
struct None {};

// Containers deeper than this are refused when they are made, so that no walk over a value needs
// a limit of its own.
inline constexpr int kMaxValueDepth = 100;

class Value {
 public:
  enum class Kind {
    kUndefined,
    kNone,
    kBool,
    kInteger,
    kFloat,
    kString,
    kSequence,
    kDict,
    kNamespace,
    kIterator,
    kLoop,
    kFunction,
  };

  Value() = default;
  static Value MakeUndefined(std::string reason);
  static Value MakeNone() { return Value(None{}); }
  static Value MakeBool(bool value) { return Value(value); }
  static Value MakeInteger(int64_t value) { return Value(value); }
  static Value MakeFloat(double value) { return Value(value); }
  static Value MakeString(std::string template_bytes) {
    return MakeString(Text(std::move(template_bytes)));
  }
  static Value MakeString(Text text);
  // INVALID_ARGUMENT beyond kMaxValueDepth.
  static absl::StatusOr<Value> MakeList(std::vector<Value> items);
  static absl::StatusOr<Value> MakeSequence(Sequence sequence);
  static absl::StatusOr<Value> MakeDict(Dict dict);
  static absl::StatusOr<Value> MakeIterator(std::vector<Value> items, std::string_view type_name);
  static Value MakeNamespace(std::shared_ptr<Namespace> space) { return Value(std::move(space)); }
  static absl::StatusOr<Value> MakeLoop(std::shared_ptr<LoopState> loop);
  static Value MakeFunction(Function function);

  Kind kind() const { return static_cast<Kind>(value_.index()); }
  bool is_undefined() const { return kind() == Kind::kUndefined; }
  bool is_none() const { return kind() == Kind::kNone; }
  bool is_bool() const { return kind() == Kind::kBool; }
  bool is_integer() const { return kind() == Kind::kInteger; }
  bool is_string() const { return kind() == Kind::kString; }
  bool is_dict() const { return kind() == Kind::kDict; }
  // Python's int: bool is one, too.
  std::optional<int64_t> AsInteger() const;
  // int, bool and float.
  std::optional<double> AsNumber() const;
  const std::string& undefined_reason() const;
  double float_value() const { return std::get<double>(value_); }
  const Text& text() const { return *std::get<std::shared_ptr<const Text>>(value_); }
  const std::string& bytes() const { return text().bytes(); }
  const Dict& dict() const { return *std::get<std::shared_ptr<const Dict>>(value_); }
  const Sequence* sequence() const;        // null for other kinds
  const std::vector<Value>* list() const;  // items of a list or tuple; null for other kinds
  Namespace* space() const;
  Iterator* iterator() const;
  LoopState* loop() const;
  const Function* function() const;

  int depth() const;
  bool IsTrue() const;
  const char* TypeName() const;  // as Python names it
  // What {{ value }} prints, and Python's repr. INVALID_ARGUMENT for what has no stable text.
  absl::StatusOr<Text> ToText() const;
  absl::Status AppendRepr(Text* out) const;

 private:
  using Storage = std::variant<
      std::shared_ptr<const Undefined>, None, bool, int64_t, double, std::shared_ptr<const Text>,
      std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
      std::shared_ptr<Iterator>, std::shared_ptr<LoopState>, std::shared_ptr<const Function>>;
  template <typename T>
  explicit Value(T value) : value_(std::move(value)) {}

  Storage value_;
};

// In the order of insertion. A key is a string, number, bool, none or tuple; 1, 1.0 and true are
// one key.
class Dict {
 public:
  using Entry = std::pair<Value, Value>;
  const std::vector<Entry>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  int depth() const { return depth_; }
  const Value* Find(const Value& key) const;
  const Value* Find(std::string_view key) const;
  void Set(const Value& key, Value value);
  void Set(std::string_view key, Value value) {
    Set(Value::MakeString(std::string(key)), std::move(value));
  }

 private:
  void Index();

  std::vector<Entry> entries_;
  // Entry numbers in the order of their string keys; only for dictionaries of some size.
  std::vector<size_t> by_name_;
  int depth_ = 1;
};

struct Sequence {
  enum class Type { kList, kTuple, kRange, kKeys, kValues, kItems };
  Type type = Type::kList;
  std::vector<Value> items;
  int64_t range[3] = {0, 0, 1};  // start, stop, step of a range
  int depth = 1;                 // set by MakeSequence
};

// What filters such as map and select return: can be read once.
struct Iterator {
  std::vector<Value> items;
  size_t next_idx = 0;
  std::string_view type_name;  // static
  int depth = 1;
};

struct Namespace {
  Dict attributes;
};

// The variable `loop`.
struct LoopState {
  std::vector<Value> items;
  int64_t idx = 0;
  int depth = 1;  // set by MakeLoop
};

struct Macro;
struct Scope;

// Something to call: a built-in by name, a method of `self`, or a macro.
struct Function {
  std::string_view name;  // static, of the template for a macro
  std::optional<Value> self;
  const Macro* macro = nullptr;     // belongs to the template
  std::weak_ptr<Scope> scope = {};  // where the macro was defined; weak, for it holds the macro
};

bool Equals(const Value& a, const Value& b);
// -1, 0, 1; INVALID_ARGUMENT for types that have no order.
absl::StatusOr<int> Order(const Value& a, const Value& b, std::string_view operation);
// Python's `needle in haystack`.
absl::StatusOr<bool> Contains(const Value& haystack, const Value& needle);
// What a for loop goes over; reads an iterator to its end.
absl::StatusOr<std::vector<Value>> Iterate(const Value& value);
// Python's repr of a float.
std::string FormatFloat(double value);
// INVALID_ARGUMENT for what Python cannot hash.
absl::Status CheckKey(const Value& key);

}  // namespace gatehouse::jinja
