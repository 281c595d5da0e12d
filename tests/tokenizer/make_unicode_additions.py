"""Writes engine/tokenizer/unicode_additions.h: code points that Hugging Face `tokenizers` (Oniguruma,
Unicode 16) classifies and PCRE2 10.42 (Unicode 14) does not know.

  python tests/tokenizer/make_unicode_additions.py > engine/tokenizer/unicode_additions.h

Needs: pip install tokenizers==0.23.3; a Python whose unicodedata is 14.0 (3.11) stands for PCRE2 in
the general categories, and a small ctypes call asks libpcre2-8 itself for the scripts.
"""

import ctypes
import ctypes.util
import unicodedata

from tokenizers import Regex, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
CATEGORIES = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cf").split()
SCRIPTS = ("Han Hiragana Katakana Hangul Bopomofo Latin Greek Cyrillic Arabic Hebrew Thai "
           "Devanagari").split()
HEADER = """// Made by tests/tokenizer/make_unicode_additions.py: what Unicode 15 to 16 added, which Hugging
// Face's libraries know and PCRE2 10.42 (Unicode 14) and utf8proc 2.8 (Unicode 15) do not. The
// property is a general category or a script; a code point may stand here under both.
#pragma once

#include <cstdint>
#include <string_view>

namespace gatehouse {

struct UnicodeAddition {
  uint32_t first;
  uint32_t last;
  std::string_view property;
};

// clang-format off
inline constexpr UnicodeAddition kUnicodeAdditions[] = {"""
FOOTER = """};
// clang-format on

}  // namespace gatehouse"""


def onig_members(pattern):
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    members = set()
    for i in range(0, len(CODE_POINTS), 4096):
        chunk = CODE_POINTS[i:i + 4096]
        left = {ord(c) for text, _ in split.pre_tokenize_str("".join(map(chr, chunk))) for c in text}
        members.update(c for c in chunk if c not in left)
    return members


def pcre2_members(pattern):
    lib = ctypes.CDLL(ctypes.util.find_library("pcre2-8"))
    lib.pcre2_compile_8.restype = ctypes.c_void_p
    lib.pcre2_match_data_create_8.restype = ctypes.c_void_p
    error, offset = ctypes.c_int(), ctypes.c_size_t()
    utf_ucp = 0x00080000 | 0x00020000
    code = ctypes.c_void_p(lib.pcre2_compile_8(pattern.encode(), ctypes.c_size_t(len(pattern)), utf_ucp,
                                               ctypes.byref(error), ctypes.byref(offset), None))
    data = ctypes.c_void_p(lib.pcre2_match_data_create_8(1, None))
    members = set()
    for c in CODE_POINTS:
        text = chr(c).encode()
        if lib.pcre2_match_8(code, text, ctypes.c_size_t(len(text)), ctypes.c_size_t(0), 0, data, None) > 0:
            members.add(c)
    return members


def ranges(code_points):
    result = []
    for c in sorted(code_points):
        if result and result[-1][1] == c - 1:
            result[-1][1] = c
        else:
            result.append([c, c])
    return result


def main():
    assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
    rows = []
    for name in CATEGORIES:
        known = {c for c in CODE_POINTS if unicodedata.category(chr(c)) == name}
        rows += [(first, last, name) for first, last in ranges(onig_members(r"\p{%s}" % name) - known)]
    for name in SCRIPTS:
        missing = onig_members(r"\p{%s}" % name) - pcre2_members(r"\p{sc:%s}" % name)
        rows += [(first, last, name) for first, last in ranges(missing)]
    cells = ['{0x%X, 0x%X, "%s"},' % row for row in rows]
    print(HEADER)
    line = ""
    for cell in cells:
        if line and len(line) + 1 + len(cell) > 100:
            print(line)
            line = ""
        line += (" " if line else "") + cell
    print(line)
    print(FOOTER)


main()
