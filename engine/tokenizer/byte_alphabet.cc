#include "engine/tokenizer/byte_alphabet.h"

#include <array>

#include "kernels/base/utf8.h"

namespace gatehouse {
namespace {

constexpr int kNumLetters = 256 + 68;  // letters are below this code point

struct Alphabet {
  std::array<char32_t, 256> byte_to_letter;
  std::array<int16_t, kNumLetters> letter_to_byte;  // -1: no letter
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet{};
  for (int16_t& byte : alphabet.letter_to_byte) byte = -1;
  char32_t next_letter = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
    const char32_t letter = printable ? static_cast<char32_t>(byte) : next_letter++;
    alphabet.byte_to_letter[byte] = letter;
    alphabet.letter_to_byte[letter] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

char32_t ByteToLetter(uint8_t byte) { return kAlphabet.byte_to_letter[byte]; }

std::optional<std::string> LettersToBytes(std::string_view token) {
  std::string bytes;
  bytes.reserve(token.size());
  for (size_t offset = 0; offset < token.size();) {
    const char32_t letter = NextCodePoint(token, &offset);
    if (letter >= kNumLetters || kAlphabet.letter_to_byte[letter] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kAlphabet.letter_to_byte[letter]));
  }
  return bytes;
}

}  // namespace gatehouse
