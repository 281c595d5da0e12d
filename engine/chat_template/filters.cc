#include "engine/chat_template/filters.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "engine/chat_template/call.h"
#include "engine/chat_template/operators.h"
#include "engine/chat_template/sequence_filters.h"
#include "engine/chat_template/string_format.h"
#include "engine/chat_template/string_methods.h"
#include "engine/chat_template/to_json.h"
#include "kernels/base/status_macros.h"
#include "kernels/base/utf8.h"

namespace gatehouse::jinja {
namespace {

using Result = absl::StatusOr<Value>;
using BoundFilter = Result (*)(Interpreter& run, const Value& value, const Bound& bound);

Result Trim(Interpreter& run, const Value& value, const Bound& bound) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Text text, TextOf(run, value));
  if (!bound[0].has_value() || bound[0]->is_none()) {
    return Value::MakeString(Strip(text, nullptr, true, true));
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const Text chars, TextOr(bound, 0, ""));
  return Value::MakeString(Strip(text, &chars.bytes(), true, true));
}

template <std::string (*change)(std::string_view)>
Result Changed(Interpreter& run, const Value& value, const Bound&) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Text text, TextOf(run, value));
  return Value::MakeString(text.Derive(change(text.bytes())));
}

// Not str.title: a word begins after white space, a hyphen or an opening bracket.
std::string TitleWords(std::string_view text) {
  std::string titled;
  bool at_begin = true;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = NextCodePoint(text, &at);
    const std::string_view character = text.substr(begin, at - begin);
    titled += at_begin ? ToUpper(character) : ToLower(character);
    at_begin = IsPythonSpace(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  }
  return titled;
}

std::string EscapeHtml(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      case '"':
        escaped += "&#34;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

Result ReplaceIn(Interpreter& run, const Value& value, const Bound& bound) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Text text, TextOf(run, value));
  GATEHOUSE_ASSIGN_OR_RETURN(const Text old, TextOf(run, *bound[0]));
  GATEHOUSE_ASSIGN_OR_RETURN(const Text replacement, TextOf(run, *bound[1]));
  int64_t count = -1;
  if (bound[2].has_value() && !bound[2]->is_none()) {
    GATEHOUSE_ASSIGN_OR_RETURN(count, IntegerOr(bound, 2, -1));
  }
  GATEHOUSE_ASSIGN_OR_RETURN(Text replaced, Replace(run, text, old, replacement, count));
  return Value::MakeString(std::move(replaced));
}

// A number of spaces, or a text.
absl::StatusOr<std::string> IndentOf(const std::optional<Value>& width, int64_t otherwise) {
  if (width.has_value() && width->is_string()) return width->bytes();
  const std::optional<int64_t> count = width.has_value() ? width->AsInteger() : otherwise;
  if (!count.has_value()) return WrongType("indent", *width, "a number or a text");
  constexpr int64_t kMaxIndent = 1000;
  if (*count > kMaxIndent) {
    return absl::InvalidArgumentError(
        absl::StrFormat("indent: got %d, the limit is %d", *count, kMaxIndent));
  }
  return std::string(static_cast<size_t>(std::max<int64_t>(*count, 0)), ' ');
}

Result Indent(Interpreter& run, const Value& value, const Bound& bound) {
  if (!value.is_string()) return WrongType("indent", value, "a string");
  GATEHOUSE_ASSIGN_OR_RETURN(const std::string indent, IndentOf(bound[0], 4));
  const bool first = FlagOr(bound, 1, false);
  const bool blank = FlagOr(bound, 2, false);
  Text text = value.text();
  text.Append("\n");  // as jinja2 does, so that a last line that is empty counts as one
  const std::vector<Text> lines = SplitLines(text, false);
  GATEHOUSE_RETURN_IF_ERROR(run.ChargeBytes(lines.size() * (indent.size() + 1)));
  Text indented;
  if (first) indented.Append(indent);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) indented.Append("\n");
    if (i > 0 && (blank || lines[i].size() > 0)) indented.Append(indent);
    indented.Append(lines[i]);
  }
  return MakeText(run, std::move(indented));
}

Result Format(Interpreter& run, const Value& value, const Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty()) {
    return absl::InvalidArgumentError("format takes positional or named arguments, not both");
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const Text format, TextOf(run, value));
  if (!arguments.named.empty()) {
    Dict dict;
    for (const auto& [name, each] : arguments.named) dict.Set(name, each);
    GATEHOUSE_ASSIGN_OR_RETURN(const Value values, Value::MakeDict(std::move(dict)));
    return FormatPercent(run, format, values);
  }
  GATEHOUSE_ASSIGN_OR_RETURN(
      const Value values,
      Value::MakeSequence({.type = Sequence::Type::kTuple, .items = arguments.positional}));
  return FormatPercent(run, format, values);
}

// Python's float(): surrounding white space and single underscores between digits are fine.
std::optional<double> ParseFloat(const std::string& bytes) {
  const ByteRange kept = StrippedRange(bytes, nullptr, true, true);
  std::string text = bytes.substr(kept.begin, kept.end - kept.begin);
  if (text.find_first_of("xXpP") != std::string::npos) return std::nullopt;
  text.erase(std::remove(text.begin(), text.end(), '_'), text.end());
  double number = 0;
  if (!absl::SimpleAtod(text, &number)) return std::nullopt;
  return number;
}

std::optional<int64_t> ParseInteger(const std::string& bytes, int base) {
  const ByteRange kept = StrippedRange(bytes, nullptr, true, true);
  std::string text = bytes.substr(kept.begin, kept.end - kept.begin);
  text.erase(std::remove(text.begin(), text.end(), '_'), text.end());
  if (text.empty() || std::isspace(static_cast<unsigned char>(text[0])) != 0) return std::nullopt;
  char* end = nullptr;
  errno = 0;
  const long long number = std::strtoll(text.c_str(), &end, base);
  if (errno != 0 || *end != '\0' || end == text.c_str()) return std::nullopt;
  return number;
}

std::optional<int64_t> Truncate(double number) {
  if (!(std::abs(number) < 9.2e18)) return std::nullopt;
  return static_cast<int64_t>(number);
}

Result ToInteger(Interpreter&, const Value& value, const Bound& bound) {
  if (value.is_undefined()) return absl::InvalidArgumentError(value.undefined_reason());
  GATEHOUSE_ASSIGN_OR_RETURN(const int64_t base, IntegerOr(bound, 1, 10));
  if (base != 0 && (base < 2 || base > 36)) {
    return absl::InvalidArgumentError("int: the base must be 0 or from 2 to 36");
  }
  std::optional<int64_t> integer = value.AsInteger();
  if (value.is_string()) {
    integer = ParseInteger(value.bytes(), static_cast<int>(base));
    if (!integer.has_value()) {
      const std::optional<double> number = ParseFloat(value.bytes());
      if (number.has_value()) integer = Truncate(*number);
    }
  } else if (value.kind() == Value::Kind::kFloat) {
    integer = Truncate(value.float_value());
  }
  if (integer.has_value()) return Value::MakeInteger(*integer);
  return bound[0].value_or(Value::MakeInteger(0));
}

Result ToFloat(Interpreter&, const Value& value, const Bound& bound) {
  if (value.is_undefined()) return absl::InvalidArgumentError(value.undefined_reason());
  const std::optional<double> number =
      value.is_string() ? ParseFloat(value.bytes()) : value.AsNumber();
  if (number.has_value()) return Value::MakeFloat(*number);
  return bound[0].value_or(Value::MakeFloat(0));
}

// Python's round: to even, by the exact value. printf rounds so.
double RoundCommon(double number, int64_t precision) {
  if (!std::isfinite(number) || precision > 300) return number;
  if (precision < 0) {
    const double scale = std::pow(10.0, static_cast<double>(-precision));
    return precision < -300 ? 0.0 : std::nearbyint(number / scale) * scale;
  }
  std::array<char, 1024> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%.*f", static_cast<int>(precision), number);
  return std::strtod(buffer.data(), nullptr);
}

Result Round(Interpreter&, const Value& value, const Bound& bound) {
  GATEHOUSE_ASSIGN_OR_RETURN(const int64_t precision, IntegerOr(bound, 0, 0));
  GATEHOUSE_ASSIGN_OR_RETURN(const Text method, TextOr(bound, 1, "common"));
  const std::optional<double> number = value.AsNumber();
  if (!number.has_value()) return WrongType("round", value, "a number");
  if (method.bytes() == "common") {
    if (value.AsInteger().has_value() && precision >= 0) {
      return Value::MakeInteger(*value.AsInteger());
    }
    const double rounded = RoundCommon(*number, precision);
    if (value.AsInteger().has_value()) {
      return Value::MakeInteger(Truncate(rounded).value_or(0));
    }
    return Value::MakeFloat(rounded);
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = *number * scale;
  if (method.bytes() == "ceil") return Value::MakeFloat(std::ceil(scaled) / scale);
  if (method.bytes() == "floor") return Value::MakeFloat(std::floor(scaled) / scale);
  return absl::InvalidArgumentError("method must be common, ceil or floor");
}

Result Absolute(Interpreter&, const Value& value, const Bound&) {
  if (const std::optional<int64_t> integer = value.AsInteger()) {
    return *integer < 0 ? Negate(value) : Result(Value::MakeInteger(*integer));
  }
  if (const std::optional<double> number = value.AsNumber()) {
    return Value::MakeFloat(std::abs(*number));
  }
  return WrongType("abs", value, "a number");
}

Result Default(Interpreter&, const Value& value, const Bound& bound) {
  const bool replace = value.is_undefined() || (FlagOr(bound, 1, false) && !value.IsTrue());
  if (!replace) return value;
  return bound[0].value_or(Value::MakeString(""));
}

Result ToJsonFilter(Interpreter& run, const Value& value, const Bound& bound) {
  JsonStyle style;
  style.ensure_ascii = FlagOr(bound, 0, false);
  if (bound[1].has_value() && !bound[1]->is_none()) {
    GATEHOUSE_ASSIGN_OR_RETURN(style.indent, IndentOf(bound[1], 0));
    style.item_separator.pop_back();  // Python leaves out the space at the end of lines
  }
  if (bound[2].has_value() && !bound[2]->is_none()) {
    const std::vector<Value>* const separators = bound[2]->list();
    if (separators == nullptr || separators->size() != 2 || !(*separators)[0].is_string() ||
        !(*separators)[1].is_string()) {
      return WrongType("tojson", *bound[2], "two separators");
    }
    style.item_separator = (*separators)[0].bytes();
    style.key_separator = (*separators)[1].bytes();
  }
  style.sort_keys = FlagOr(bound, 3, false);
  GATEHOUSE_ASSIGN_OR_RETURN(Text json, ToJson(run, value, style));
  return Value::MakeString(std::move(json));
}

Result ToTextValue(Interpreter& run, const Value& value, const Bound&) {
  GATEHOUSE_ASSIGN_OR_RETURN(Text text, TextOf(run, value));
  return Value::MakeString(std::move(text));
}

struct Entry {
  std::string_view name;
  std::string_view params;
  size_t num_required;
  BoundFilter call;
};

const std::array kFilters = {
    Entry{"abs", "", 0, Absolute},
    Entry{"capitalize", "", 0, Changed<Capitalize>},
    Entry{"count", "", 0, Length},
    Entry{"d", "default_value boolean", 0, Default},
    Entry{"default", "default_value boolean", 0, Default},
    Entry{"dictsort", "case_sensitive by reverse", 0, DictSort},
    Entry{"e", "", 0, Changed<EscapeHtml>},
    Entry{"escape", "", 0, Changed<EscapeHtml>},
    Entry{"first", "", 0, First},
    Entry{"float", "default", 0, ToFloat},
    Entry{"forceescape", "", 0, Changed<EscapeHtml>},
    Entry{"indent", "width first blank", 0, Indent},
    Entry{"int", "default base", 0, ToInteger},
    Entry{"items", "", 0, ItemsOf},
    Entry{"join", "d attribute", 0, Join},
    Entry{"last", "", 0, Last},
    Entry{"length", "", 0, Length},
    Entry{"list", "", 0, List},
    Entry{"lower", "", 0, Changed<ToLower>},
    Entry{"max", "case_sensitive attribute", 0, Max},
    Entry{"min", "case_sensitive attribute", 0, Min},
    Entry{"replace", "old new count", 2, ReplaceIn},
    Entry{"reverse", "", 0, Reverse},
    Entry{"round", "precision method", 0, Round},
    Entry{"safe", "", 0, ToTextValue},  // marks for HTML, which is never made here
    Entry{"sort", "reverse case_sensitive attribute", 0, Sort},
    Entry{"string", "", 0, ToTextValue},
    Entry{"sum", "attribute start", 0, Sum},
    Entry{"title", "", 0, Changed<TitleWords>},
    Entry{"tojson", "ensure_ascii indent separators sort_keys", 0, ToJsonFilter},
    Entry{"trim", "chars", 0, Trim},
    Entry{"unique", "case_sensitive attribute", 0, Unique},
    Entry{"upper", "", 0, Changed<ToUpper>},
};

// Those that take the arguments of another filter or test.
struct OpenEntry {
  std::string_view name;
  Result (*call)(Interpreter& run, const Value& value, const Arguments& arguments);
};
const std::array kOpenFilters = {
    OpenEntry{"format", Format}, OpenEntry{"map", Map},
    OpenEntry{"reject", Reject}, OpenEntry{"rejectattr", RejectByAttribute},
    OpenEntry{"select", Select}, OpenEntry{"selectattr", SelectByAttribute},
};

template <typename Table>
auto Find(const Table& table, std::string_view name) {
  return std::find_if(table.begin(), table.end(),
                      [name](const auto& entry) { return entry.name == name; });
}

}  // namespace

bool IsFilter(std::string_view name) {
  return Find(kFilters, name) != kFilters.end() || Find(kOpenFilters, name) != kOpenFilters.end();
}

absl::StatusOr<Value> CallFilter(Interpreter& run, std::string_view name, const Value& value,
                                 const Arguments& arguments) {
  if (const auto* open = Find(kOpenFilters, name); open != kOpenFilters.end()) {
    return open->call(run, value, arguments);
  }
  const auto* const filter = Find(kFilters, name);
  if (filter == kFilters.end()) {
    return absl::InvalidArgumentError(absl::StrFormat("No filter named '%s'.", name));
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const Bound bound,
                             Bind(name, filter->params, filter->num_required, arguments));
  return filter->call(run, value, bound);
}

}  // namespace gatehouse::jinja
