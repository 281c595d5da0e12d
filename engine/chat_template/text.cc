#include "engine/chat_template/text.h"

#include <utf8proc.h>

#include <algorithm>

#include "absl/strings/str_format.h"
#include "kernels/base/utf8.h"

namespace gatehouse::jinja {
namespace {

// Python's str.isprintable.
bool IsPrintable(char32_t c) {
  if (c == ' ') return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
}

template <typename Change>
std::string MapCharacters(std::string_view text, const Change& change) {
  std::string mapped;
  mapped.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const char32_t c = NextCodePoint(text, &at);
    AppendUtf8(static_cast<char32_t>(change(static_cast<utf8proc_int32_t>(c))), &mapped);
  }
  return mapped;
}

}  // namespace

Text Text::FromClient(std::string bytes) {
  Text text(std::move(bytes));
  if (text.size() > 0) text.client_ranges_.push_back({0, text.size()});
  return text;
}

void Text::AppendPart(const Text& text, size_t begin, size_t end) {
  if (begin == end) return;  // it may lie within a range, of which nothing is kept
  const size_t offset = size();
  bytes_.append(text.bytes_, begin, end - begin);
  auto range = std::lower_bound(text.client_ranges_.begin(), text.client_ranges_.end(), begin,
                                [](const ByteRange& r, size_t at) { return r.end <= at; });
  for (; range != text.client_ranges_.end() && range->begin < end; ++range) {
    const ByteRange moved{std::max(range->begin, begin) - begin + offset,
                          std::min(range->end, end) - begin + offset};
    if (!client_ranges_.empty() && client_ranges_.back().end == moved.begin) {
      client_ranges_.back().end = moved.end;
    } else {
      client_ranges_.push_back(moved);
    }
  }
}

Text Text::Part(size_t begin, size_t end) const {
  Text part;
  part.AppendPart(*this, begin, end);
  return part;
}

Text Text::Derive(std::string bytes) const {
  return has_client_bytes() ? FromClient(std::move(bytes)) : Text(std::move(bytes));
}

size_t CountCharacters(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::vector<size_t> CharacterOffsets(std::string_view text) {
  std::vector<size_t> offsets;
  offsets.reserve(text.size() + 1);
  for (size_t at = 0; at < text.size(); ++at) {
    if ((text[at] & 0xC0) != 0x80) offsets.push_back(at);
  }
  offsets.push_back(text.size());
  return offsets;
}

bool IsPythonSpace(char32_t c) {
  return (c >= 0x9 && c <= 0xD) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

ByteRange StrippedRange(std::string_view text, const std::string* chars, bool left, bool right) {
  const auto strips = [chars](char32_t c) {
    if (chars == nullptr) return IsPythonSpace(c);
    for (size_t at = 0; at < chars->size();) {
      if (NextCodePoint(*chars, &at) == c) return true;
    }
    return false;
  };
  ByteRange range{0, text.size()};
  while (left && range.begin < range.end) {
    size_t next = range.begin;
    if (!strips(NextCodePoint(text, &next))) break;
    range.begin = next;
  }
  while (right && range.begin < range.end) {
    if (!strips(PreviousCodePoint(text, range.end))) break;
    do {
      --range.end;
    } while ((text[range.end] & 0xC0) == 0x80);
  }
  return range;
}

std::string ToLower(std::string_view text) { return MapCharacters(text, utf8proc_tolower); }

std::string ToUpper(std::string_view text) {
  std::string upper = MapCharacters(text, utf8proc_toupper);
  if (IsAscii(text)) return upper;
  // The sharp s is the one of them that people write: two letters, unless it was a capital before.
  constexpr std::string_view kCapital = "\u1E9E";
  if (text.find(kCapital) != std::string_view::npos) return upper;
  for (size_t at = upper.find(kCapital); at != std::string::npos; at = upper.find(kCapital, at)) {
    upper.replace(at, kCapital.size(), "SS");
  }
  return upper;
}

std::string Capitalize(std::string_view text) {
  if (text.empty()) return "";
  size_t rest = 0;
  NextCodePoint(text, &rest);
  return MapCharacters(text.substr(0, rest), utf8proc_totitle) + ToLower(text.substr(rest));
}

std::string Quote(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const bool has_double = text.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string quoted(1, quote);
  if (IsAscii(text)) quoted.reserve(text.size() + 2);
  for (size_t at = 0; at < text.size();) {
    const char32_t c = NextCodePoint(text, &at);
    if (c == static_cast<unsigned char>(quote) || c == '\\') {
      quoted += '\\';
      quoted += static_cast<char>(c);
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (c == '\r') {
      quoted += "\\r";
    } else if (c == '\t') {
      quoted += "\\t";
    } else if (IsPrintable(c)) {
      AppendUtf8(c, &quoted);
    } else if (c < 0x100) {
      quoted += absl::StrFormat("\\x%02x", static_cast<uint32_t>(c));
    } else if (c < 0x10000) {
      quoted += absl::StrFormat("\\u%04x", static_cast<uint32_t>(c));
    } else {
      quoted += absl::StrFormat("\\U%08x", static_cast<uint32_t>(c));
    }
  }
  return quoted + quote;
}

}  // namespace gatehouse::jinja
