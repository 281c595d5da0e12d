#include "kernels/base/utf8.h"

#include <cstdint>
#include <cstring>

namespace gatehouse {
namespace {

enum class Sequence { kCharacter, kInvalid, kUnfinished };

struct Scan {
  Sequence sequence;
  size_t num_bytes;  // the character, or the maximal part to replace, or all that is left
};

uint8_t ByteAt(std::string_view text, size_t offset) { return static_cast<uint8_t>(text[offset]); }

// text[offset] is not ASCII. The second byte alone decides about overlong forms, surrogates and the
// upper limit (Unicode table 3-7).
Scan ScanMultiByte(std::string_view text, size_t offset) {
  const uint8_t lead = ByteAt(text, offset);
  if (lead < 0xC2 || lead > 0xF4) return {Sequence::kInvalid, 1};
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (size_t i = 1; i < length; ++i) {
    if (offset + i == text.size()) return {Sequence::kUnfinished, i};
    const uint8_t byte = ByteAt(text, offset + i);
    if (byte < low || byte > high) return {Sequence::kInvalid, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Sequence::kCharacter, length};
}

// Most text is ASCII: eight bytes at a time.
size_t SkipAscii(std::string_view text, size_t offset) {
  while (text.size() - offset >= sizeof(uint64_t)) {
    uint64_t block;
    std::memcpy(&block, text.data() + offset, sizeof(block));
    if ((block & 0x8080808080808080u) != 0) break;
    offset += sizeof(block);
  }
  while (offset < text.size() && ByteAt(text, offset) < 0x80) ++offset;
  return offset;
}

}  // namespace

size_t FindInvalidUtf8(std::string_view text) {
  for (size_t offset = SkipAscii(text, 0); offset < text.size();) {
    const Scan scan = ScanMultiByte(text, offset);
    if (scan.sequence != Sequence::kCharacter) return offset;
    offset = SkipAscii(text, offset + scan.num_bytes);
  }
  return text.size();
}

size_t AppendUtf8Lossy(std::string_view bytes, std::string* text) {
  size_t begin = 0;  // of the good part that is not copied yet
  for (size_t offset = SkipAscii(bytes, 0); offset < bytes.size();) {
    const Scan scan = ScanMultiByte(bytes, offset);
    if (scan.sequence != Sequence::kCharacter) {
      text->append(bytes.substr(begin, offset - begin));
      if (scan.sequence == Sequence::kUnfinished) return scan.num_bytes;
      text->append(kReplacementCharacter);
      begin = offset + scan.num_bytes;
    }
    offset = SkipAscii(bytes, offset + scan.num_bytes);
  }
  text->append(bytes.substr(begin));
  return 0;
}

char32_t NextCodePoint(std::string_view text, size_t* offset) {
  const uint8_t lead = ByteAt(text, (*offset)++);
  if (lead < 0x80) return lead;
  const int num_more = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
  char32_t code_point = lead & (0x3F >> num_more);
  for (int i = 0; i < num_more; ++i) {
    code_point = code_point << 6 | (ByteAt(text, (*offset)++) & 0x3F);
  }
  return code_point;
}

char32_t PreviousCodePoint(std::string_view text, size_t offset) {
  do {
    --offset;
  } while (offset > 0 && (ByteAt(text, offset) & 0xC0) == 0x80);
  return NextCodePoint(text, &offset);
}

void AppendUtf8(char32_t code_point, std::string* text) {
  const auto append = [text](char32_t byte) { text->push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    append(code_point);
    return;
  }
  if (code_point < 0x800) {
    append(0xC0 | code_point >> 6);
  } else {
    if (code_point < 0x10000) {
      append(0xE0 | code_point >> 12);
    } else {
      append(0xF0 | code_point >> 18);
      append(0x80 | (code_point >> 12 & 0x3F));
    }
    append(0x80 | (code_point >> 6 & 0x3F));
  }
  append(0x80 | (code_point & 0x3F));
}

}  // namespace gatehouse
