#include "engine/chat_template/value.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

#include "absl/strings/str_format.h"
#include "kernels/base/status_macros.h"

namespace gatehouse::jinja {
namespace {

int DepthOf(const std::vector<Value>& items) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  return depth + 1;
}

absl::Status CheckDepth(int depth) {
  if (depth <= kMaxValueDepth) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("values are nested deeper than %d", kMaxValueDepth));
}

absl::Status AppendItems(const std::vector<Value>& items, Text* out) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out->Append(", ");
    GATEHOUSE_RETURN_IF_ERROR(items[i].AppendRepr(out));
  }
  return absl::OkStatus();
}

absl::Status AppendSequence(const Sequence& sequence, Text* out) {
  static constexpr std::array<std::pair<const char*, const char*>, 6> kBrackets = {{
      {"[", "]"},
      {"(", ")"},
      {"", ""},
      {"dict_keys([", "])"},
      {"dict_values([", "])"},
      {"dict_items([", "])"},
  }};
  if (sequence.type == Sequence::Type::kRange) {
    out->Append(absl::StrFormat("range(%d, %d", sequence.range[0], sequence.range[1]));
    if (sequence.range[2] != 1) out->Append(absl::StrFormat(", %d", sequence.range[2]));
    out->Append(")");
    return absl::OkStatus();
  }
  const auto& [open, close] = kBrackets[static_cast<size_t>(sequence.type)];
  out->Append(open);
  GATEHOUSE_RETURN_IF_ERROR(AppendItems(sequence.items, out));
  if (sequence.type == Sequence::Type::kTuple && sequence.items.size() == 1) out->Append(",");
  out->Append(close);
  return absl::OkStatus();
}

absl::Status AppendDict(const Dict& dict, Text* out) {
  out->Append("{");
  bool first = true;
  for (const auto& [key, value] : dict.entries()) {
    if (!first) out->Append(", ");
    first = false;
    GATEHOUSE_RETURN_IF_ERROR(key.AppendRepr(out));
    out->Append(": ");
    GATEHOUSE_RETURN_IF_ERROR(value.AppendRepr(out));
  }
  out->Append("}");
  return absl::OkStatus();
}

template <typename T, typename Storage>
T* PointerIn(const Storage& storage) {
  const auto* held = std::get_if<std::shared_ptr<T>>(&storage);
  return held == nullptr ? nullptr : held->get();
}

int Sign(const std::strong_ordering order) { return order < 0 ? -1 : order > 0 ? 1 : 0; }

}  // namespace

Value Value::MakeUndefined(std::string reason) {
  return Value(std::make_shared<const Undefined>(Undefined{std::move(reason)}));
}
Value Value::MakeString(Text text) { return Value(std::make_shared<const Text>(std::move(text))); }
Value Value::MakeFunction(Function function) {
  return Value(std::make_shared<const Function>(std::move(function)));
}

absl::StatusOr<Value> Value::MakeList(std::vector<Value> items) {
  return MakeSequence({.type = Sequence::Type::kList, .items = std::move(items)});
}
absl::StatusOr<Value> Value::MakeSequence(Sequence sequence) {
  sequence.depth = DepthOf(sequence.items);
  GATEHOUSE_RETURN_IF_ERROR(CheckDepth(sequence.depth));
  return Value(std::make_shared<const Sequence>(std::move(sequence)));
}
absl::StatusOr<Value> Value::MakeDict(Dict dict) {
  GATEHOUSE_RETURN_IF_ERROR(CheckDepth(dict.depth()));
  return Value(std::make_shared<const Dict>(std::move(dict)));
}
absl::StatusOr<Value> Value::MakeIterator(std::vector<Value> items, std::string_view type_name) {
  const int depth = DepthOf(items);
  GATEHOUSE_RETURN_IF_ERROR(CheckDepth(depth));
  return Value(std::make_shared<Iterator>(Iterator{std::move(items), 0, type_name, depth}));
}
absl::StatusOr<Value> Value::MakeLoop(std::shared_ptr<LoopState> loop) {
  loop->depth = DepthOf(loop->items);
  GATEHOUSE_RETURN_IF_ERROR(CheckDepth(loop->depth));
  return Value(std::move(loop));
}

std::optional<int64_t> Value::AsInteger() const {
  if (const bool* value = std::get_if<bool>(&value_)) return *value ? 1 : 0;
  if (const int64_t* value = std::get_if<int64_t>(&value_)) return *value;
  return std::nullopt;
}

std::optional<double> Value::AsNumber() const {
  if (const double* value = std::get_if<double>(&value_)) return *value;
  const std::optional<int64_t> integer = AsInteger();
  if (!integer.has_value()) return std::nullopt;
  return static_cast<double>(*integer);
}

const std::string& Value::undefined_reason() const {
  static const std::string kNothing = "the value is undefined";
  const auto& held = std::get<std::shared_ptr<const Undefined>>(value_);
  return held == nullptr ? kNothing : held->reason;
}

const Sequence* Value::sequence() const { return PointerIn<const Sequence>(value_); }
const std::vector<Value>* Value::list() const {
  const Sequence* const held = sequence();
  return held != nullptr && held->type <= Sequence::Type::kTuple ? &held->items : nullptr;
}
Namespace* Value::space() const { return PointerIn<Namespace>(value_); }
Iterator* Value::iterator() const { return PointerIn<Iterator>(value_); }
LoopState* Value::loop() const { return PointerIn<LoopState>(value_); }
const Function* Value::function() const { return PointerIn<const Function>(value_); }

int Value::depth() const {
  switch (kind()) {
    case Kind::kSequence:
      return sequence()->depth;
    case Kind::kDict:
      return dict().depth();
    case Kind::kIterator:
      return iterator()->depth;
    case Kind::kLoop:
      return loop()->depth;
    case Kind::kFunction:
      return function()->self.has_value() ? function()->self->depth() : 0;
    default:
      return 0;
  }
}

bool Value::IsTrue() const {
  switch (kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInteger:
      return *AsInteger() != 0;
    case Kind::kFloat:
      return float_value() != 0;
    case Kind::kString:
      return !bytes().empty();
    case Kind::kSequence:
      return !sequence()->items.empty();
    case Kind::kDict:
      return dict().size() > 0;
    default:
      return true;
  }
}

const char* Value::TypeName() const {
  static constexpr std::array<const char*, 6> kSequences = {
      "list", "tuple", "range", "dict_keys", "dict_values", "dict_items"};
  static constexpr std::array<const char*, 12> kNames = {
      "Undefined", "None", "bool",      "int",       "float",       "str",
      "",          "dict", "Namespace", "generator", "LoopContext", "function"};
  const Sequence* const held = sequence();
  return held != nullptr ? kSequences[static_cast<size_t>(held->type)]
                         : kNames[static_cast<size_t>(kind())];
}

absl::StatusOr<Text> Value::ToText() const {
  if (is_string()) return text();
  Text out;
  if (is_undefined()) return out;
  GATEHOUSE_RETURN_IF_ERROR(AppendRepr(&out));
  return out;
}

absl::Status Value::AppendRepr(Text* out) const {
  switch (kind()) {
    case Kind::kUndefined:
      out->Append("Undefined");
      return absl::OkStatus();
    case Kind::kNone:
      out->Append("None");
      return absl::OkStatus();
    case Kind::kBool:
      out->Append(IsTrue() ? "True" : "False");
      return absl::OkStatus();
    case Kind::kInteger:
      out->Append(absl::StrFormat("%d", *AsInteger()));
      return absl::OkStatus();
    case Kind::kFloat:
      out->Append(FormatFloat(float_value()));
      return absl::OkStatus();
    case Kind::kString:
      out->Append(text().Derive(Quote(bytes())));
      return absl::OkStatus();
    case Kind::kSequence:
      return AppendSequence(*sequence(), out);
    case Kind::kDict:
      return AppendDict(dict(), out);
    default:
      return absl::InvalidArgumentError(
          absl::StrFormat("a value of type %s cannot be printed", TypeName()));
  }
}

// Sorting pays from about here on; most dictionaries of messages and tools are smaller.
constexpr size_t kIndexedSize = 16;

const Value* Dict::Find(const Value& key) const {
  if (key.is_string()) return Find(key.bytes());
  for (const auto& [each, value] : entries_) {
    if (!each.is_string() && Equals(each, key)) return &value;
  }
  return nullptr;
}

const Value* Dict::Find(std::string_view key) const {
  if (entries_.size() < kIndexedSize) {
    for (const auto& [each, value] : entries_) {
      if (each.is_string() && each.bytes() == key) return &value;
    }
    return nullptr;
  }
  const auto found = std::lower_bound(
      by_name_.begin(), by_name_.end(), key,
      [this](size_t i, std::string_view name) { return entries_[i].first.bytes() < name; });
  if (found == by_name_.end() || entries_[*found].first.bytes() != key) return nullptr;
  return &entries_[*found].second;
}

void Dict::Set(const Value& key, Value value) {
  depth_ = std::max({depth_, key.depth() + 1, value.depth() + 1});
  if (const Value* found = Find(key)) {
    const_cast<Value&>(*found) = std::move(value);
    return;
  }
  entries_.emplace_back(key, std::move(value));
  if (entries_.size() == kIndexedSize) {
    Index();
  } else if (entries_.size() > kIndexedSize && key.is_string()) {
    const auto place = std::lower_bound(
        by_name_.begin(), by_name_.end(), key.bytes(),
        [this](size_t i, const std::string& name) { return entries_[i].first.bytes() < name; });
    by_name_.insert(place, entries_.size() - 1);
  }
}

void Dict::Index() {
  by_name_.clear();
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (entries_[i].first.is_string()) by_name_.push_back(i);
  }
  std::sort(by_name_.begin(), by_name_.end(), [this](size_t a, size_t b) {
    return entries_[a].first.bytes() < entries_[b].first.bytes();
  });
}

bool Equals(const Value& a, const Value& b) {
  const std::optional<int64_t> a_integer = a.AsInteger();
  const std::optional<int64_t> b_integer = b.AsInteger();
  if (a_integer.has_value() && b_integer.has_value()) return *a_integer == *b_integer;
  const std::optional<double> a_number = a.AsNumber();
  const std::optional<double> b_number = b.AsNumber();
  if (a_number.has_value() && b_number.has_value()) return *a_number == *b_number;
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Value::Kind::kUndefined:
    case Value::Kind::kNone:
      return true;
    case Value::Kind::kString:
      return a.bytes() == b.bytes();
    case Value::Kind::kSequence: {
      if (a.sequence()->type != b.sequence()->type) return false;
      const std::vector<Value>& items = a.sequence()->items;
      return std::equal(items.begin(), items.end(), b.sequence()->items.begin(),
                        b.sequence()->items.end(), Equals);
    }
    case Value::Kind::kDict:
      if (a.dict().size() != b.dict().size()) return false;
      return std::all_of(a.dict().entries().begin(), a.dict().entries().end(),
                         [&b](const Dict::Entry& entry) {
                           const Value* other = b.dict().Find(entry.first);
                           return other != nullptr && Equals(entry.second, *other);
                         });
    case Value::Kind::kNamespace:
      return a.space() == b.space();
    case Value::Kind::kIterator:
      return a.iterator() == b.iterator();
    case Value::Kind::kLoop:
      return a.loop() == b.loop();
    default:
      return a.function() == b.function();
  }
}

absl::StatusOr<int> Order(const Value& a, const Value& b, std::string_view operation) {
  if (a.is_undefined()) return absl::InvalidArgumentError(a.undefined_reason());
  if (b.is_undefined()) return absl::InvalidArgumentError(b.undefined_reason());
  const std::optional<int64_t> a_integer = a.AsInteger();
  const std::optional<int64_t> b_integer = b.AsInteger();
  if (a_integer.has_value() && b_integer.has_value()) return Sign(*a_integer <=> *b_integer);
  const std::optional<double> a_number = a.AsNumber();
  const std::optional<double> b_number = b.AsNumber();
  if (a_number.has_value() && b_number.has_value()) {
    return *a_number < *b_number ? -1 : *a_number > *b_number ? 1 : 0;
  }
  // The order of UTF-8 is the order of code points.
  if (a.is_string() && b.is_string()) return Sign(a.bytes().compare(b.bytes()) <=> 0);
  if (a.list() != nullptr && b.list() != nullptr && a.sequence()->type == b.sequence()->type) {
    for (size_t i = 0; i < std::min(a.list()->size(), b.list()->size()); ++i) {
      if (Equals((*a.list())[i], (*b.list())[i])) continue;
      return Order((*a.list())[i], (*b.list())[i], operation);
    }
    return Sign(a.list()->size() <=> b.list()->size());
  }
  return absl::InvalidArgumentError(absl::StrFormat("'%s' is not supported between %s and %s",
                                                    operation, a.TypeName(), b.TypeName()));
}

absl::StatusOr<bool> Contains(const Value& haystack, const Value& needle) {
  if (haystack.is_string()) {
    if (!needle.is_string()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("'in' a string takes a string, got %s", needle.TypeName()));
    }
    // Linear, where string::find takes the product of both lengths.
    return memmem(haystack.bytes().data(), haystack.bytes().size(), needle.bytes().data(),
                  needle.bytes().size()) != nullptr;
  }
  if (haystack.is_dict()) {
    GATEHOUSE_RETURN_IF_ERROR(CheckKey(needle));
    return haystack.dict().Find(needle) != nullptr;
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(haystack));
  return std::any_of(items.begin(), items.end(),
                     [&needle](const Value& item) { return Equals(item, needle); });
}

absl::StatusOr<std::vector<Value>> Iterate(const Value& value) {
  std::vector<Value> items;
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      return items;
    case Value::Kind::kSequence:
      return value.sequence()->items;
    case Value::Kind::kDict:
      for (const auto& [key, unused] : value.dict().entries()) items.push_back(key);
      return items;
    case Value::Kind::kString: {
      const std::vector<size_t> offsets = CharacterOffsets(value.bytes());
      for (size_t i = 0; i + 1 < offsets.size(); ++i) {
        items.push_back(Value::MakeString(value.text().Part(offsets[i], offsets[i + 1])));
      }
      return items;
    }
    case Value::Kind::kIterator: {
      Iterator& iterator = *value.iterator();
      items.assign(iterator.items.begin() + static_cast<std::ptrdiff_t>(iterator.next_idx),
                   iterator.items.end());
      iterator.next_idx = iterator.items.size();
      return items;
    }
    default:
      return absl::InvalidArgumentError(
          absl::StrFormat("a value of type %s cannot be iterated over", value.TypeName()));
  }
}

std::string FormatFloat(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 64> buffer;
  const auto scientific = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                        std::chars_format::scientific);
  std::string text(buffer.data(), scientific.ptr);
  const size_t e = text.find('e');
  const int exponent = std::atoi(text.c_str() + e + 1);
  if (exponent < -4 || exponent >= 16) return text;  // two digits at least, as Python has them
  const auto fixed =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed);
  std::string digits(buffer.data(), fixed.ptr);
  if (digits.find('.') == std::string::npos) digits += ".0";
  return digits;
}

absl::Status CheckKey(const Value& key) {
  switch (key.kind()) {
    case Value::Kind::kNone:
    case Value::Kind::kBool:
    case Value::Kind::kInteger:
    case Value::Kind::kFloat:
    case Value::Kind::kString:
    case Value::Kind::kUndefined:
      return absl::OkStatus();
    case Value::Kind::kSequence:
      if (key.sequence()->type == Sequence::Type::kTuple) {
        for (const Value& item : key.sequence()->items) {
          GATEHOUSE_RETURN_IF_ERROR(CheckKey(item));
        }
        return absl::OkStatus();
      }
      break;
    default:
      break;
  }
  return absl::InvalidArgumentError(absl::StrFormat("unhashable type: '%s'", key.TypeName()));
}

}  // namespace gatehouse::jinja
