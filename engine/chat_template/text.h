// A string of a template: UTF-8, and which of its bytes a client wrote.
//
// What a client wrote must never become a special token, what the template wrote must. So each
// operation that keeps characters (joining, cutting, replacing) keeps their origin; of one that
// changes them (upper, format, escape) the whole result is the client's if any of its text was.
// Origins change no character, no comparison and no length. A value; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/tokenizer.h"

namespace gatehouse::jinja {

class Text {
 public:
  Text() = default;
  explicit Text(std::string template_bytes) : bytes_(std::move(template_bytes)) {}
  static Text FromClient(std::string bytes);

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  // Ascending, apart, not empty.
  const std::vector<ByteRange>& client_ranges() const { return client_ranges_; }
  bool has_client_bytes() const { return !client_ranges_.empty(); }

  void Append(std::string_view template_bytes) { bytes_ += template_bytes; }
  void Append(const Text& text) { AppendPart(text, 0, text.size()); }
  void AppendPart(const Text& text, size_t begin, size_t end);
  Text Part(size_t begin, size_t end) const;
  // `bytes` made of this text in a way that lost track of places.
  Text Derive(std::string bytes) const;

 private:
  std::string bytes_;
  std::vector<ByteRange> client_ranges_;
};

// Characters, as Python counts them.
size_t CountCharacters(std::string_view text);
// Byte offsets of all characters, and text.size() behind them.
std::vector<size_t> CharacterOffsets(std::string_view text);

// Whether Python's str.isspace says so.
bool IsPythonSpace(char32_t c);
// `text` without the characters of `chars` at its sides; without white space if `chars` is null.
ByteRange StrippedRange(std::string_view text, const std::string* chars, bool left, bool right);

// Python's str.lower and str.upper but for the few characters that become several.
std::string ToLower(std::string_view text);
std::string ToUpper(std::string_view text);
std::string Capitalize(std::string_view text);

// Python's repr of a str.
std::string Quote(std::string_view text);

}  // namespace gatehouse::jinja
