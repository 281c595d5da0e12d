#include "engine/tokenizer/regex_syntax.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/strings/str_format.h"
#include "engine/json/json_fields.h"
#include "engine/tokenizer/unicode_additions.h"
#include "kernels/base/status_macros.h"
#include "kernels/base/utf8.h"

namespace gatehouse {
namespace {

constexpr std::string_view kCategories[] = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M", "Mn", "Mc", "Me", "N",  "Nd", "Nl", "No", "P", "Pc",
    "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S", "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp"};
constexpr std::string_view kScripts[] = {"Han",      "Hiragana", "Katakana", "Hangul",
                                         "Bopomofo", "Latin",    "Greek",    "Cyrillic",
                                         "Arabic",   "Hebrew",   "Thai",     "Devanagari"};

template <size_t kSize>
bool Contains(const std::string_view (&names)[kSize], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

std::string CodePointText(uint32_t code_point) { return absl::StrFormat("\\x{%x}", code_point); }

// What stands in [...] for \p{name}; empty when the name is not known here.
std::string PropertyMembers(std::string_view name) {
  const bool is_category = Contains(kCategories, name);
  if (!is_category && !Contains(kScripts, name)) return "";
  std::string members = absl::StrFormat("\\p{%s%s}", is_category ? "" : "sc:", name);
  for (const UnicodeAddition& addition : kUnicodeAdditions) {
    const bool is_member = is_category && addition.property.size() == 2
                               ? addition.property.substr(0, name.size()) == name
                               : addition.property == name;
    if (!is_member) continue;
    members += CodePointText(addition.first) + "-" + CodePointText(addition.last);
  }
  return members;
}

// Oniguruma's \w alone looks the first 256 characters up in a table of its own, in which ², ³, ¹,
// ¼, ½ and ¾ are word characters; within a class it does not.
std::string WordMembers(bool in_class) {
  return std::string(in_class ? "" : "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}") + "\\p{Alphabetic}" +
         PropertyMembers("L") + PropertyMembers("M") + PropertyMembers("Nd") +
         PropertyMembers("Pc");
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<std::string> Run() {
    if (pattern_.substr(0, 4) == "(?i)") {
      at_ = 4;
      out_ = "(?i)";
      caseless_ = true;
    }
    while (at_ < pattern_.size()) GATEHOUSE_RETURN_IF_ERROR(Item());
    if (!groups_.empty()) return Refuse("an open group");
    return out_;
  }

 private:
  char Peek(size_t ahead = 0) const {
    return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0';
  }

  absl::Status Refuse(std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s at offset %d of the regular expression \"%s\"", what, at_, Printable(pattern_)));
  }

  void Copy(size_t num_bytes) {
    out_ += pattern_.substr(at_, num_bytes);
    at_ += num_bytes;
  }

  absl::Status Item() {
    const char c = Peek();
    if (c != '\\' && c != '[') {
      if (c == '(') return OpenGroup();
      if (c == ')') return CloseGroup();
      if (c == '{') return Interval();
      if (c == ']' || c == '}') return Refuse("a lone bracket");
      if (std::string_view("*+?|.^$").find(c) != std::string_view::npos) {
        last_letter_ = '\0';
        Copy(1);
        return absl::OkStatus();
      }
      return Literal();
    }
    last_letter_ = '\0';
    return c == '[' ? Class() : Escape(/*in_class=*/false);
  }

  // Oniguruma lets one character match several when case is ignored (ß for ss, ﬁ for fi); PCRE2
  // never does. Only letters that can not take part in that are let through.
  absl::Status Literal() {
    size_t end = at_;
    const char32_t code_point = NextCodePoint(pattern_, &end);
    if (caseless_) {
      if (code_point >= 0x80) return Refuse("a letter outside ASCII with case ignored");
      const char letter = static_cast<char>(code_point | 0x20);
      const std::string pair = {last_letter_, letter};
      for (const char* folded : {"ss", "ff", "fi", "fl", "st"}) {
        if (pair == folded) return Refuse("a letter pair with a ligature, with case ignored,");
      }
      last_letter_ = letter;
    }
    Copy(end - at_);
    return absl::OkStatus();
  }

  absl::Status OpenGroup() {
    constexpr std::string_view kOpenings[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"};
    last_letter_ = '\0';
    groups_.push_back(caseless_);
    for (std::string_view opening : kOpenings) {
      if (pattern_.substr(at_, opening.size()) != opening) continue;
      if (opening == "(?i:") caseless_ = true;
      Copy(opening.size());
      return absl::OkStatus();
    }
    if (Peek(1) == '?' || Peek(1) == '*') return Refuse("a group of an unknown kind");
    Copy(1);
    return absl::OkStatus();
  }

  absl::Status CloseGroup() {
    if (groups_.empty()) return Refuse("a lone bracket");
    caseless_ = groups_.back();
    groups_.pop_back();
    last_letter_ = '\0';
    Copy(1);
    return absl::OkStatus();
  }

  // {n} {n,} {n,m} {,m}. Ruby reads + after any of them, and ? after {n}, as one more quantifier.
  absl::Status Interval() {
    const size_t end = pattern_.find('}', at_);
    if (end == std::string_view::npos) return Refuse("an open interval");
    const std::string_view body = pattern_.substr(at_ + 1, end - at_ - 1);
    const size_t comma = body.find(',');
    const std::string_view low = body.substr(0, comma);
    const std::string_view high = comma == std::string_view::npos ? low : body.substr(comma + 1);
    const auto is_number = [](std::string_view text) {
      return text.size() <= 4 && text.find_first_not_of("0123456789") == std::string_view::npos;
    };
    if (!is_number(low) || !is_number(high) || (low.empty() && high.empty())) {
      return Refuse("a brace that is no interval");
    }
    const char next = end + 1 < pattern_.size() ? pattern_[end + 1] : '\0';
    if (next == '+' || (next == '?' && comma == std::string_view::npos)) {
      return Refuse("a possessive or lazy interval");
    }
    out_ += low.empty() ? "{0" : "{" + std::string(low);
    if (comma != std::string_view::npos) out_ += "," + std::string(high);
    out_ += "}";
    at_ = end + 1;
    return absl::OkStatus();
  }

  absl::Status Class() {
    Copy(1);
    if (Peek() == '^') Copy(1);
    if (Peek() == ']') return Refuse("an empty class");
    while (Peek() != ']') {
      if (at_ >= pattern_.size()) return Refuse("an open class");
      if (Peek() == '[') return Refuse("a class within a class");
      if (Peek() == '&' && Peek(1) == '&') return Refuse("an intersection of classes");
      if (Peek() == '\\') {
        GATEHOUSE_RETURN_IF_ERROR(Escape(/*in_class=*/true));
        continue;
      }
      size_t end = at_;
      const char32_t code_point = NextCodePoint(pattern_, &end);
      if (caseless_ && code_point >= 0x80) {
        return Refuse("a letter outside ASCII with case ignored");
      }
      Copy(end - at_);
    }
    Copy(1);
    return absl::OkStatus();
  }

  // at_ is at the backslash.
  absl::Status Escape(bool in_class) {
    const char c = Peek(1);
    switch (c) {
      case 's':
      case 'S':
        return Replace(2, c == 's' ? "\\p{White_Space}" : "\\P{White_Space}");
      case 'd':
      case 'D':
        return Members(2, PropertyMembers("Nd"), c == 'D', in_class);
      case 'w':
      case 'W':
        return Members(2, WordMembers(in_class), c == 'W', in_class);
      case 'h':
        return Members(2, "0-9a-fA-F", false, in_class);
      case 'v':
        return Replace(2, "\\x{b}");
      case 'p':
      case 'P':
        return Property(in_class);
      case 'x':
      case 'u':
        return CodePoint();
      case 'A':
      case 'z':
        if (in_class) return Refuse("an anchor in a class");
        [[fallthrough]];
      case 't':
      case 'n':
      case 'r':
      case 'f':
      case 'a':
      case 'e':
        Copy(2);
        return absl::OkStatus();
      default: {
        const bool is_letter_or_digit =
            (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
        if (c <= ' ' || c > '~' || is_letter_or_digit) return Refuse("an unknown escape");
        Copy(2);
        return absl::OkStatus();
      }
    }
  }

  absl::Status Replace(size_t num_bytes, std::string_view text) {
    out_ += text;
    at_ += num_bytes;
    return absl::OkStatus();
  }

  absl::Status Members(size_t num_bytes, const std::string& members, bool negated, bool in_class) {
    if (in_class && negated) return Refuse("a negated property in a class");
    return Replace(num_bytes, in_class ? members : (negated ? "[^" : "[") + members + "]");
  }

  absl::Status Property(bool in_class) {
    const size_t end = pattern_.find('}', at_);
    if (Peek(2) != '{' || end == std::string_view::npos) return Refuse("a property without {}");
    bool negated = Peek(1) == 'P';
    std::string_view name = pattern_.substr(at_ + 3, end - at_ - 3);
    if (!name.empty() && name[0] == '^') {
      negated = !negated;
      name.remove_prefix(1);
    }
    const std::string members = PropertyMembers(name);
    if (members.empty()) return Refuse("an unknown property");
    return Members(end + 1 - at_, members, negated, in_class);
  }

  // \xHH below 80 (above it would be a byte, not a character), \x{H...}, \uHHHH.
  absl::Status CodePoint() {
    const bool braces = Peek(1) == 'x' && Peek(2) == '{';
    const size_t begin = at_ + (braces ? 3 : 2);
    size_t end = begin + (Peek(1) == 'u' ? 4 : 2);
    if (braces) end = pattern_.find('}', begin);
    if (end == std::string_view::npos || end > pattern_.size()) return Refuse("an open escape");
    const std::string digits(pattern_.substr(begin, end - begin));
    if (digits.empty() || digits.size() > 6 ||
        digits.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) {
      return Refuse("an unknown escape");
    }
    const uint32_t code_point = static_cast<uint32_t>(std::stoul(digits, nullptr, 16));
    const bool is_byte = Peek(1) == 'x' && !braces && code_point >= 0x80;
    if (is_byte || (caseless_ && code_point >= 0x80)) return Refuse("an escape above 7F");
    return Replace(end + (braces ? 1 : 0) - at_, CodePointText(code_point));
  }

  const std::string_view pattern_;
  size_t at_ = 0;
  std::string out_;
  bool caseless_ = false;
  std::vector<bool> groups_;  // caseless_ outside of each open group
  char last_letter_ = '\0';   // the literal before this one, when case is ignored
};

}  // namespace

absl::StatusOr<std::string> OnigurumaToPcre2(std::string_view pattern) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::string translated, Translator(pattern).Run());
  // DeepSeek-V2 has this. Where it fails at the first space of a run it fails at all others, too,
  // but tried anew at each it takes quadratic time.
  if (pattern == R"(\s+$)") return R"((?:\G|(?<!\p{White_Space})))" + translated;
  return translated;
}

}  // namespace gatehouse
