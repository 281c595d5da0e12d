// The printable characters by which a byte-level tokenizer.json writes bytes (GPT-2's table): the
// bytes 21-7E, A1-AC and AE-FF stand for themselves, the other 68 are U+0100, U+0101, ... in order.
//   " the" is written "Ġthe" (20 -> U+0120), "é" is written "Ã©"
// Pure functions, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace gatehouse {

char32_t ByteToLetter(uint8_t byte);
// nullopt when `token` (UTF-8) holds a character outside the alphabet.
std::optional<std::string> LettersToBytes(std::string_view token);

}  // namespace gatehouse
