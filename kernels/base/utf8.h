// UTF-8 as RFC 3629 has it (no surrogates, nothing above U+10FFFF, shortest form only).
// Pure functions, any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace gatehouse {

// Byte offset of the first character that is not UTF-8; text.size() when all of it is.
size_t FindInvalidUtf8(std::string_view text);

// Appends `bytes` to *text with U+FFFD for each maximal part that can not be a character, as Rust's
// String::from_utf8_lossy (and so Hugging Face) does. Returns how many bytes at the end (0 to 3)
// begin a character without finishing it: these are not appended.
//   "a" E2 82 28 F0 9F -> "a" U+FFFD "(", returns 2
size_t AppendUtf8Lossy(std::string_view bytes, std::string* text);

// The character that starts at text[*offset], which is moved behind it. `text` must be UTF-8.
char32_t NextCodePoint(std::string_view text, size_t* offset);

// The character that ends before text[offset]; offset > 0, `text` must be UTF-8.
char32_t PreviousCodePoint(std::string_view text, size_t offset);

void AppendUtf8(char32_t code_point, std::string* text);

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

}  // namespace gatehouse
