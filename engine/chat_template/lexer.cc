#include "engine/chat_template/lexer.h"

#include <algorithm>
#include <array>
#include <optional>

#include "absl/strings/str_format.h"
#include "engine/chat_template/text.h"
#include "kernels/base/status_macros.h"
#include "kernels/base/utf8.h"

namespace gatehouse::jinja {
namespace {

constexpr size_t kNotFound = std::string_view::npos;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80) != 0;
}
bool IsNamePart(char c) { return IsNameStart(c) || IsDigit(c); }

// Line breaks as "\n", and the last one gone.
std::string NormalizeNewlines(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      text += source[i];
    } else if (i + 1 == source.size() || source[i + 1] != '\n') {
      text += '\n';
    }
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormalizeNewlines(source)), rest_(source_) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (!rest_.empty()) GATEHOUSE_RETURN_IF_ERROR(ReadDataAndTag());
    Add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  absl::Status Fail(std::string_view problem) const {
    return absl::InvalidArgumentError(absl::StrFormat("line %d: %s", line_, problem));
  }
  void Add(Token::Kind kind, std::string text) {
    tokens_.push_back({.kind = kind, .line = line_, .text = std::move(text)});
  }
  void Skip(size_t num_bytes) {
    const std::string_view skipped = rest_.substr(0, num_bytes);
    line_ += static_cast<int>(std::count(skipped.begin(), skipped.end(), '\n'));
    if (!skipped.empty()) line_starting_ = skipped.back() == '\n';
    rest_.remove_prefix(num_bytes);
  }
  void SkipSpaces() {
    const ByteRange kept = StrippedRange(rest_, nullptr, true, false);
    Skip(kept.begin);
  }

  // `text` before a tag, less what the tag's sign (or lstrip_blocks) takes.
  std::string_view TrimBefore(std::string_view text, char sign, bool is_variable) const {
    if (sign == '-') return text.substr(0, StrippedRange(text, nullptr, false, true).end);
    if (sign == '+' || is_variable) return text;
    const size_t newline = text.rfind('\n');
    const size_t line_begin = newline == kNotFound ? 0 : newline + 1;
    if (line_begin == 0 && !line_starting_) return text;
    const std::string_view last_line = text.substr(line_begin);
    const bool blank = StrippedRange(last_line, nullptr, true, false).begin == last_line.size();
    return blank ? text.substr(0, line_begin) : text;
  }

  absl::Status ReadDataAndTag() {
    size_t tag = 0;
    for (tag = rest_.find('{'); tag != kNotFound; tag = rest_.find('{', tag + 1)) {
      const char next = tag + 1 < rest_.size() ? rest_[tag + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') break;
    }
    if (tag == kNotFound) {
      Add(Token::Kind::kData, std::string(rest_));
      Skip(rest_.size());
      return absl::OkStatus();
    }
    const char type = rest_[tag + 1];
    const char after = tag + 2 < rest_.size() ? rest_[tag + 2] : '\0';
    const char sign = after == '-' || after == '+' ? after : '\0';
    const std::string_view data = TrimBefore(rest_.substr(0, tag), sign, type == '{');
    if (!data.empty()) Add(Token::Kind::kData, std::string(data));
    Skip(tag + (sign == '\0' ? 2 : 3));
    if (type == '#') return SkipComment();
    if (type == '%') {
      if (const std::optional<size_t> raw = FindRawTag(rest_, "raw", false)) return ReadRaw(*raw);
    }
    return ReadTag(type);
  }

  // Behind the end of a tag: "-" takes all white space, a block takes one line break.
  void SkipAfterEnd(char sign, bool is_block) {
    if (sign == '-') {
      SkipSpaces();
    } else if (is_block && sign != '+' && !rest_.empty() && rest_[0] == '\n') {
      Skip(1);
    }
  }

  absl::Status SkipComment() {
    const size_t end = rest_.find("#}");
    if (end == kNotFound) return Fail("a comment is not closed, expected '#}'");
    const char sign =
        end > 0 && (rest_[end - 1] == '-' || rest_[end - 1] == '+') ? rest_[end - 1] : '\0';
    Skip(end + 2);
    SkipAfterEnd(sign, true);
    return absl::OkStatus();
  }

  // Length of "<name> %}" at the front of `text`; a sign before %} is counted.
  static std::optional<size_t> FindRawTag(std::string_view text, std::string_view name,
                                          bool plus_allowed) {
    size_t at = StrippedRange(text, nullptr, true, false).begin;
    if (text.substr(at, name.size()) != name) return std::nullopt;
    at += name.size();
    at += StrippedRange(text.substr(at), nullptr, true, false).begin;
    if (at < text.size() && (text[at] == '-' || (plus_allowed && text[at] == '+'))) ++at;
    if (text.substr(at, 2) != "%}") return std::nullopt;
    return at + 2;
  }

  absl::Status ReadRaw(size_t tag_size) {
    const char sign = rest_[tag_size - 3];
    Skip(tag_size);
    if (sign == '-') SkipSpaces();
    if (rest_.empty()) return absl::OkStatus();
    for (size_t tag = rest_.find("{%"); tag != kNotFound; tag = rest_.find("{%", tag + 1)) {
      size_t name = tag + 2;
      const char begin_sign = name < rest_.size() ? rest_[name] : '\0';
      if (begin_sign == '-' || begin_sign == '+') ++name;
      const std::optional<size_t> end = FindRawTag(rest_.substr(name), "endraw", true);
      if (!end.has_value()) continue;
      const std::string_view data = TrimBefore(rest_.substr(0, tag), begin_sign, false);
      if (!data.empty()) Add(Token::Kind::kData, std::string(data));
      const char end_sign = rest_[name + *end - 3];
      Skip(name + *end);
      SkipAfterEnd(end_sign, true);
      return absl::OkStatus();
    }
    return Fail("a raw block is not closed, expected '{% endraw %}'");
  }

  absl::Status ReadTag(char type) {
    const bool is_block = type == '%';
    const std::string_view end = is_block ? "%}" : "}}";
    Add(is_block ? Token::Kind::kBlockBegin : Token::Kind::kVariableBegin, is_block ? "{%" : "{{");
    std::string open_brackets;
    while (true) {
      SkipSpaces();
      if (rest_.empty()) {
        return Fail(absl::StrFormat("a tag is not closed, expected '%s'", end));
      }
      if (open_brackets.empty()) {
        const bool has_sign = rest_[0] == '-' || (is_block && rest_[0] == '+');
        if (rest_.substr(has_sign ? 1 : 0, 2) == end) {
          const char sign = has_sign ? rest_[0] : '\0';
          Add(is_block ? Token::Kind::kBlockEnd : Token::Kind::kVariableEnd, std::string(end));
          Skip(has_sign ? 3 : 2);
          SkipAfterEnd(sign, is_block);
          return absl::OkStatus();
        }
      }
      GATEHOUSE_RETURN_IF_ERROR(ReadToken(&open_brackets));
    }
  }

  absl::Status ReadToken(std::string* open_brackets) {
    const char c = rest_[0];
    if (IsDigit(c)) return ReadNumber();
    if (c == '\'' || c == '"') return ReadString();
    if (IsNameStart(c)) {
      const auto end = std::find_if_not(rest_.begin(), rest_.end(), IsNamePart);
      const auto size = static_cast<size_t>(end - rest_.begin());
      Add(Token::Kind::kName, std::string(rest_.substr(0, size)));
      Skip(size);
      return absl::OkStatus();
    }
    static constexpr std::array<std::string_view, 26> kOperators = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    const auto sign = std::find_if(
        kOperators.begin(), kOperators.end(),
        [this](std::string_view each) { return rest_.substr(0, each.size()) == each; });
    if (sign == kOperators.end()) {
      return Fail(absl::StrFormat("unexpected character %s, expected an expression",
                                  Quote(rest_.substr(0, 1))));
    }
    if (*sign == "(" || *sign == "[" || *sign == "{") {
      *open_brackets += *sign == "(" ? ')' : *sign == "[" ? ']' : '}';
    } else if (*sign == ")" || *sign == "]" || *sign == "}") {
      if (open_brackets->empty()) {
        return Fail(absl::StrFormat("unexpected '%s', expected no bracket to be closed", *sign));
      }
      if (open_brackets->back() != (*sign)[0]) {
        return Fail(
            absl::StrFormat("unexpected '%s', expected '%c'", *sign, open_brackets->back()));
      }
      open_brackets->pop_back();
    }
    Add(Token::Kind::kOperator, std::string(*sign));
    Skip(sign->size());
    return absl::OkStatus();
  }

  size_t CountDigits(size_t at) const {
    size_t end = at;
    while (end < rest_.size() && (IsDigit(rest_[end]) || (rest_[end] == '_' && end > at))) ++end;
    return end - at;
  }

  absl::Status ReadNumber() {
    size_t size = 0;
    bool is_float = false;
    const char kind = rest_.size() > 1 ? static_cast<char>(rest_[1] | 0x20) : '\0';
    if (rest_[0] == '0' && (kind == 'x' || kind == 'o' || kind == 'b')) {
      size = 2;
      while (size < rest_.size() && (IsNamePart(rest_[size]))) ++size;
    } else {
      size = CountDigits(0);
      const bool after_dot = !tokens_.empty() && tokens_.back().IsOperator(".");
      if (!after_dot && size + 1 < rest_.size() && rest_[size] == '.' && IsDigit(rest_[size + 1])) {
        size += 1 + CountDigits(size + 1);
        is_float = true;
      }
      if (!after_dot && size + 1 < rest_.size() && (rest_[size] == 'e' || rest_[size] == 'E')) {
        const size_t digits = size + (rest_[size + 1] == '+' || rest_[size + 1] == '-' ? 2 : 1);
        if (CountDigits(digits) > 0) {
          size = digits + CountDigits(digits);
          is_float = true;
        }
      }
    }
    std::string text(rest_.substr(0, size));
    text.erase(std::remove(text.begin(), text.end(), '_'), text.end());
    Add(is_float ? Token::Kind::kFloat : Token::Kind::kInteger, std::move(text));
    Skip(size);
    return absl::OkStatus();
  }

  absl::Status ReadString() {
    const char quote = rest_[0];
    std::string text;
    size_t at = 1;
    for (; at < rest_.size() && rest_[at] != quote; ++at) {
      if (rest_[at] != '\\') {
        text += rest_[at];
        continue;
      }
      if (++at == rest_.size()) break;
      GATEHOUSE_RETURN_IF_ERROR(ReadEscape(&at, &text));
    }
    if (at >= rest_.size())
      return Fail(absl::StrFormat("a string is not closed, expected %c", quote));
    Add(Token::Kind::kString, std::move(text));
    Skip(at + 1);
    return absl::OkStatus();
  }

  // rest_[*at] follows a backslash; leaves *at on the escape's last byte.
  absl::Status ReadEscape(size_t* at, std::string* text) const {
    const char c = rest_[*at];
    static constexpr std::string_view kNames = "nrtabfv\\'\"";
    static constexpr std::string_view kBytes = "\n\r\t\a\b\f\v\\'\"";
    if (const size_t found = kNames.find(c); found != kNotFound) {
      *text += kBytes[found];
      return absl::OkStatus();
    }
    if (c == '\n') return absl::OkStatus();  // a line that goes on
    const size_t num_hex = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    const bool is_octal = c >= '0' && c <= '7';
    if (num_hex == 0 && !is_octal) {
      *text += '\\';
      *text += c;
      return absl::OkStatus();
    }
    size_t end = *at + (is_octal ? 0 : 1);
    const size_t limit = end + (is_octal ? 3 : num_hex);
    uint32_t code = 0;
    for (; end < limit && end < rest_.size(); ++end) {
      const char digit = rest_[end];
      const char lower = static_cast<char>(digit | 0x20);
      if (is_octal ? digit >= '0' && digit <= '7' : IsDigit(digit)) {
        code = code * (is_octal ? 8 : 16) + static_cast<uint32_t>(digit - '0');
      } else if (!is_octal && lower >= 'a' && lower <= 'f') {
        code = code * 16 + static_cast<uint32_t>(lower - 'a' + 10);
      } else {
        break;
      }
    }
    const bool is_character = code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
    if ((!is_octal && end != limit) || !is_character) {
      return Fail(
          absl::StrFormat("a string has a wrong escape, expected \\%c and %d hex digits of "
                          "a character",
                          c, num_hex));
    }
    AppendUtf8(static_cast<char32_t>(code), text);
    *at = end - 1;
    return absl::OkStatus();
  }

  const std::string source_;
  std::string_view rest_;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) { return Lexer(source).Run(); }

std::string Describe(const Token& token) {
  switch (token.kind) {
    case Token::Kind::kEnd:
      return "the end of the template";
    case Token::Kind::kData:
      return "text";
    case Token::Kind::kString:
      return "the string " + Quote(token.text);
    default:
      return "'" + token.text + "'";
  }
}

}  // namespace gatehouse::jinja
