#include "engine/chat_template/string_methods.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <limits>

#include "absl/strings/str_format.h"
#include "engine/chat_template/call.h"
#include "engine/chat_template/string_format.h"
#include "kernels/base/status_macros.h"
#include "kernels/base/utf8.h"

namespace gatehouse::jinja {
namespace {

using Method = absl::StatusOr<Value> (*)(Interpreter& run, const Text& self, const Bound& bound);

int64_t CountLimit(int64_t given) {
  return given < 0 ? std::numeric_limits<int64_t>::max() : given;
}

// Characters before byte `at`.
Value CharacterIndex(const std::string& bytes, size_t at) {
  if (at == std::string::npos) return Value::MakeInteger(-1);
  return Value::MakeInteger(
      static_cast<int64_t>(CountCharacters(std::string_view(bytes).substr(0, at))));
}

absl::StatusOr<Value> ToList(Interpreter& run, std::vector<Text> parts) {
  GATEHOUSE_RETURN_IF_ERROR(run.ChargeItems(parts.size()));
  std::vector<Value> items;
  items.reserve(parts.size());
  for (Text& part : parts) items.push_back(Value::MakeString(std::move(part)));
  return Value::MakeList(std::move(items));
}

// Python's split and rsplit without a separator: runs of white space.
std::vector<Text> SplitAtSpaces(const Text& self, int64_t limit, bool from_right) {
  std::vector<Text> parts;
  const std::string_view bytes = self.bytes();
  ByteRange rest = StrippedRange(bytes, nullptr, !from_right, from_right);
  while (rest.begin < rest.end) {
    if (static_cast<int64_t>(parts.size()) == limit) {
      // What is left keeps its other white space.
      parts.push_back(self.Part(rest.begin, rest.end));
      break;
    }
    if (from_right) {
      size_t begin = rest.end;
      while (begin > rest.begin && !IsPythonSpace(PreviousCodePoint(bytes, begin))) {
        do {
          --begin;
        } while ((bytes[begin] & 0xC0) == 0x80);
      }
      parts.push_back(self.Part(begin, rest.end));
      rest.end =
          rest.begin +
          StrippedRange(bytes.substr(rest.begin, begin - rest.begin), nullptr, false, true).end;
    } else {
      size_t end = rest.begin;
      for (size_t next = end; end < rest.end; end = next) {
        if (IsPythonSpace(NextCodePoint(bytes, &next))) break;
      }
      parts.push_back(self.Part(rest.begin, end));
      rest.begin =
          end + StrippedRange(bytes.substr(end, rest.end - end), nullptr, true, false).begin;
    }
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<Text> SplitAt(const Text& self, const std::string& separator, int64_t limit,
                          bool from_right) {
  std::vector<Text> parts;
  const std::string& bytes = self.bytes();
  size_t begin = 0;
  size_t end = bytes.size();
  while (static_cast<int64_t>(parts.size()) < limit) {
    if (from_right) {
      if (end < separator.size()) break;
      const size_t found = bytes.rfind(separator, end - separator.size());
      if (found == std::string::npos) break;
      parts.push_back(self.Part(found + separator.size(), end));
      end = found;
    } else {
      const size_t found = bytes.find(separator, begin);
      if (found == std::string::npos) break;
      parts.push_back(self.Part(begin, found));
      begin = found + separator.size();
    }
  }
  parts.push_back(self.Part(begin, end));
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

absl::StatusOr<Value> SplitText(Interpreter& run, const Text& self, const Bound& bound,
                                bool from_right) {
  GATEHOUSE_ASSIGN_OR_RETURN(const int64_t given, IntegerOr(bound, 1, -1));
  if (!bound[0].has_value() || bound[0]->is_none()) {
    return ToList(run, SplitAtSpaces(self, CountLimit(given), from_right));
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const Text separator, TextOr(bound, 0, ""));
  if (separator.size() == 0) return absl::InvalidArgumentError("empty separator");
  return ToList(run, SplitAt(self, separator.bytes(), CountLimit(given), from_right));
}

absl::StatusOr<Value> PartitionText(const Text& self, const Bound& bound, bool from_right) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Text separator, TextOr(bound, 0, ""));
  if (separator.size() == 0) return absl::InvalidArgumentError("empty separator");
  const std::string& bytes = self.bytes();
  const size_t at = from_right ? bytes.rfind(separator.bytes()) : bytes.find(separator.bytes());
  std::vector<Value> parts;
  if (at == std::string::npos) {
    parts = {Value::MakeString(self), Value::MakeString(Text()), Value::MakeString(Text())};
    if (from_right) std::swap(parts[0], parts[2]);
  } else {
    parts = {Value::MakeString(self.Part(0, at)), Value::MakeString(separator),
             Value::MakeString(self.Part(at + separator.size(), self.size()))};
  }
  return Value::MakeSequence({.type = Sequence::Type::kTuple, .items = std::move(parts)});
}

absl::StatusOr<Value> StripText(const Text& self, const Bound& bound, bool left, bool right) {
  if (!bound[0].has_value() || bound[0]->is_none()) {
    return Value::MakeString(Strip(self, nullptr, left, right));
  }
  GATEHOUSE_ASSIGN_OR_RETURN(const Text chars, TextOr(bound, 0, ""));
  return Value::MakeString(Strip(self, &chars.bytes(), left, right));
}

// Of one prefix or suffix, or of a tuple of them.
absl::StatusOr<Value> HasAffix(const Text& self, const Bound& bound, bool prefix) {
  const std::string_view bytes = self.bytes();
  const auto matches = [&](const std::string& affix) {
    return prefix ? bytes.starts_with(affix) : bytes.ends_with(affix);
  };
  if (bound[0]->is_string()) return Value::MakeBool(matches(bound[0]->bytes()));
  const Sequence* const choices = bound[0]->sequence();
  if (choices == nullptr || choices->type != Sequence::Type::kTuple) {
    return WrongType(prefix ? "startswith" : "endswith", *bound[0], "a string or a tuple");
  }
  for (const Value& choice : choices->items) {
    if (!choice.is_string()) return WrongType("startswith", choice, "a string");
    if (matches(choice.bytes())) return Value::MakeBool(true);
  }
  return Value::MakeBool(false);
}

absl::StatusOr<Value> RemoveAffix(const Text& self, const Bound& bound, bool prefix) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Text affix, TextOr(bound, 0, ""));
  const std::string_view bytes = self.bytes();
  if (prefix && bytes.starts_with(affix.bytes())) {
    return Value::MakeString(self.Part(affix.size(), self.size()));
  }
  if (!prefix && bytes.ends_with(affix.bytes())) {
    return Value::MakeString(self.Part(0, self.size() - affix.size()));
  }
  return Value::MakeString(self);
}

bool IsCased(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
         category == UTF8PROC_CATEGORY_LT;
}

bool IsLetter(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return IsCased(c) || category == UTF8PROC_CATEGORY_LM || category == UTF8PROC_CATEGORY_LO;
}

bool IsDecimal(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c)) == UTF8PROC_CATEGORY_ND;
}

std::string Title(std::string_view text) {
  std::string titled;
  bool after_cased = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = NextCodePoint(text, &at);
    const auto code = static_cast<utf8proc_int32_t>(c);
    AppendUtf8(static_cast<char32_t>(after_cased ? utf8proc_tolower(code) : utf8proc_totitle(code)),
               &titled);
    after_cased = IsCased(c);
  }
  return titled;
}

Value AllCharacters(const Text& self, bool (*holds)(char32_t)) {
  const std::string_view bytes = self.bytes();
  for (size_t at = 0; at < bytes.size();) {
    if (!holds(NextCodePoint(bytes, &at))) return Value::MakeBool(false);
  }
  return Value::MakeBool(!bytes.empty());
}

absl::StatusOr<Value> JoinText(Interpreter& run, const Text& self, const Bound& bound) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<Value> items, run.Items(*bound[0]));
  Text joined;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is_string()) return WrongType("join", items[i], "a string");
    if (i > 0) joined.Append(self);
    joined.Append(items[i].text());
    GATEHOUSE_RETURN_IF_ERROR(run.ChargeBytes(self.size() + items[i].bytes().size()));
  }
  return Value::MakeString(std::move(joined));
}

absl::StatusOr<Value> ReplaceText(Interpreter& run, const Text& self, const Bound& bound) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Text old, TextOr(bound, 0, ""));
  GATEHOUSE_ASSIGN_OR_RETURN(const Text replacement, TextOr(bound, 1, ""));
  GATEHOUSE_ASSIGN_OR_RETURN(const int64_t count, IntegerOr(bound, 2, -1));
  GATEHOUSE_ASSIGN_OR_RETURN(Text text, Replace(run, self, old, replacement, count));
  return Value::MakeString(std::move(text));
}

absl::StatusOr<Value> FindText(const Text& self, const Bound& bound, bool from_right,
                               bool must_be_there) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Text part, TextOr(bound, 0, ""));
  const std::string& bytes = self.bytes();
  const size_t at = from_right ? bytes.rfind(part.bytes()) : bytes.find(part.bytes());
  if (must_be_there && at == std::string::npos) {
    return absl::InvalidArgumentError("substring not found");
  }
  return CharacterIndex(bytes, at);
}

absl::StatusOr<Value> CountText(const Text& self, const Bound& bound) {
  GATEHOUSE_ASSIGN_OR_RETURN(const Text part, TextOr(bound, 0, ""));
  const std::string& bytes = self.bytes();
  if (part.size() == 0) {
    return Value::MakeInteger(static_cast<int64_t>(CountCharacters(bytes)) + 1);
  }
  int64_t count = 0;
  for (size_t at = bytes.find(part.bytes()); at != std::string::npos;
       at = bytes.find(part.bytes(), at + part.size())) {
    ++count;
  }
  return Value::MakeInteger(count);
}

absl::StatusOr<Value> ZeroFill(Interpreter& run, const Text& self, const Bound& bound) {
  GATEHOUSE_ASSIGN_OR_RETURN(const int64_t width, IntegerOr(bound, 0, 0));
  const auto size = static_cast<int64_t>(CountCharacters(self.bytes()));
  const int64_t missing = std::clamp<int64_t>(width - size, 0, 1 << 30);
  GATEHOUSE_RETURN_IF_ERROR(run.ChargeBytes(static_cast<size_t>(missing)));
  const bool has_sign = self.size() > 0 && (self.bytes()[0] == '-' || self.bytes()[0] == '+');
  Text filled = self.Part(0, has_sign ? 1 : 0);
  filled.Append(std::string(static_cast<size_t>(missing), '0'));
  filled.AppendPart(self, has_sign ? 1 : 0, self.size());
  return Value::MakeString(std::move(filled));
}

struct Entry {
  std::string_view name;
  std::string_view params;
  size_t num_required;
  Method call;
};

using Run = Interpreter;
using Result = absl::StatusOr<Value>;
const std::array kMethods = {
    Entry{"capitalize", "", 0,
          [](Run&, const Text& s, const Bound&) -> Result {
            return Value::MakeString(s.Derive(Capitalize(s.bytes())));
          }},
    Entry{"casefold", "", 0,
          [](Run&, const Text& s, const Bound&) -> Result {
            return Value::MakeString(s.Derive(ToLower(s.bytes())));
          }},
    Entry{"count", "sub", 1, [](Run&, const Text& s, const Bound& b) { return CountText(s, b); }},
    Entry{"endswith", "suffix", 1,
          [](Run&, const Text& s, const Bound& b) { return HasAffix(s, b, false); }},
    Entry{"find", "sub", 1,
          [](Run&, const Text& s, const Bound& b) { return FindText(s, b, false, false); }},
    Entry{"index", "sub", 1,
          [](Run&, const Text& s, const Bound& b) { return FindText(s, b, false, true); }},
    Entry{"isalnum", "", 0,
          [](Run&, const Text& s, const Bound&) -> Result {
            return AllCharacters(s, [](char32_t c) { return IsLetter(c) || IsDecimal(c); });
          }},
    Entry{"isalpha", "", 0,
          [](Run&, const Text& s, const Bound&) -> Result { return AllCharacters(s, IsLetter); }},
    Entry{"isdecimal", "", 0,
          [](Run&, const Text& s, const Bound&) -> Result { return AllCharacters(s, IsDecimal); }},
    Entry{"isdigit", "", 0,
          [](Run&, const Text& s, const Bound&) -> Result { return AllCharacters(s, IsDecimal); }},
    Entry{"islower", "", 0,
          [](Run&, const Text& s, const Bound&) -> Result {
            return Value::MakeBool(ToUpper(s.bytes()) != ToLower(s.bytes()) &&
                                   s.bytes() == ToLower(s.bytes()));
          }},
    Entry{"isspace", "", 0,
          [](Run&, const Text& s, const Bound&) -> Result {
            return AllCharacters(s, IsPythonSpace);
          }},
    Entry{"isupper", "", 0,
          [](Run&, const Text& s, const Bound&) -> Result {
            return Value::MakeBool(ToUpper(s.bytes()) != ToLower(s.bytes()) &&
                                   s.bytes() == ToUpper(s.bytes()));
          }},
    Entry{"join", "iterable", 1, JoinText},
    Entry{"lower", "", 0,
          [](Run&, const Text& s, const Bound&) -> Result {
            return Value::MakeString(s.Derive(ToLower(s.bytes())));
          }},
    Entry{"lstrip", "chars", 0,
          [](Run&, const Text& s, const Bound& b) { return StripText(s, b, true, false); }},
    Entry{"partition", "sep", 1,
          [](Run&, const Text& s, const Bound& b) { return PartitionText(s, b, false); }},
    Entry{"removeprefix", "prefix", 1,
          [](Run&, const Text& s, const Bound& b) { return RemoveAffix(s, b, true); }},
    Entry{"removesuffix", "suffix", 1,
          [](Run&, const Text& s, const Bound& b) { return RemoveAffix(s, b, false); }},
    Entry{"replace", "old new count", 2, ReplaceText},
    Entry{"rfind", "sub", 1,
          [](Run&, const Text& s, const Bound& b) { return FindText(s, b, true, false); }},
    Entry{"rpartition", "sep", 1,
          [](Run&, const Text& s, const Bound& b) { return PartitionText(s, b, true); }},
    Entry{"rsplit", "sep maxsplit", 0,
          [](Run& run, const Text& s, const Bound& b) { return SplitText(run, s, b, true); }},
    Entry{"rstrip", "chars", 0,
          [](Run&, const Text& s, const Bound& b) { return StripText(s, b, false, true); }},
    Entry{"split", "sep maxsplit", 0,
          [](Run& run, const Text& s, const Bound& b) { return SplitText(run, s, b, false); }},
    Entry{"splitlines", "keepends", 0,
          [](Run& run, const Text& s,
             const Bound& b) -> Result { return ToList(run, SplitLines(s, FlagOr(b, 0, false))); }},
    Entry{"startswith", "prefix", 1,
          [](Run&, const Text& s, const Bound& b) { return HasAffix(s, b, true); }},
    Entry{"strip", "chars", 0,
          [](Run&, const Text& s, const Bound& b) { return StripText(s, b, true, true); }},
    Entry{"title", "", 0,
          [](Run&, const Text& s,
             const Bound&) -> Result { return Value::MakeString(s.Derive(Title(s.bytes()))); }},
    Entry{"upper", "", 0,
          [](Run&, const Text& s,
             const Bound&) -> Result { return Value::MakeString(s.Derive(ToUpper(s.bytes()))); }},
    Entry{"zfill", "width", 1, ZeroFill},
};

constexpr std::string_view kFormat = "format";  // takes any arguments

}  // namespace

std::optional<std::string_view> FindStringMethod(std::string_view name) {
  if (name == kFormat) return kFormat;
  for (const Entry& entry : kMethods) {
    if (entry.name == name) return entry.name;
  }
  return std::nullopt;
}

absl::StatusOr<Value> CallStringMethod(Interpreter& run, const Text& self, std::string_view name,
                                       const Arguments& arguments) {
  GATEHOUSE_RETURN_IF_ERROR(run.ChargeBytes(self.size()));
  if (name == kFormat) return FormatBraces(run, self, arguments);
  const auto* method = std::find_if(kMethods.begin(), kMethods.end(),
                                    [name](const Entry& entry) { return entry.name == name; });
  GATEHOUSE_ASSIGN_OR_RETURN(const Bound bound,
                             Bind(name, method->params, method->num_required, arguments));
  return method->call(run, self, bound);
}

Text Strip(const Text& text, const std::string* chars, bool left, bool right) {
  const ByteRange kept = StrippedRange(text.bytes(), chars, left, right);
  return text.Part(kept.begin, kept.end);
}

absl::StatusOr<Text> Replace(Interpreter& run, const Text& text, const Text& old,
                             const Text& replacement, int64_t max_count) {
  const std::string& bytes = text.bytes();
  const int64_t limit = CountLimit(max_count);
  GATEHOUSE_RETURN_IF_ERROR(run.ChargeBytes(bytes.size()));
  Text replaced;
  size_t done = 0;
  size_t at = bytes.find(old.bytes());
  for (int64_t count = 0; at != std::string::npos && count < limit; ++count) {
    GATEHOUSE_RETURN_IF_ERROR(run.Charge(1));
    GATEHOUSE_RETURN_IF_ERROR(run.ChargeBytes(replacement.size()));
    replaced.AppendPart(text, done, at);
    replaced.Append(replacement);
    done = at + old.size();
    size_t next = done;
    if (old.size() == 0) {  // between all characters
      if (at >= bytes.size()) break;
      NextCodePoint(bytes, &next);
    }
    at = bytes.find(old.bytes(), next);
  }
  replaced.AppendPart(text, done, bytes.size());
  return replaced;
}

std::vector<Text> SplitLines(const Text& text, bool keep_ends) {
  std::vector<Text> lines;
  const std::string& bytes = text.bytes();
  size_t begin = 0;
  for (size_t at = 0; at < bytes.size();) {
    const size_t end = at;
    const char32_t c = NextCodePoint(bytes, &at);
    const bool is_break = (c >= 0xA && c <= 0xD) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
                          c == 0x2028 || c == 0x2029;
    if (!is_break) continue;
    if (c == '\r' && at < bytes.size() && bytes[at] == '\n') ++at;
    lines.push_back(text.Part(begin, keep_ends ? at : end));
    begin = at;
  }
  if (begin < bytes.size()) lines.push_back(text.Part(begin, bytes.size()));
  return lines;
}

}  // namespace gatehouse::jinja
