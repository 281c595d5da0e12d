#include "engine/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <string_view>

#include "engine/tokenizer/unicode_additions.h"
#include "kernels/base/utf8.h"

namespace gatehouse {
namespace {

struct CaseRange {
  char32_t first;
  char32_t last;
  int32_t to_lower;
};

// Unicode 16 and 17.
constexpr CaseRange kNewerCases[] = {
    {0x1C89, 0x1C89, 1},      {0xA7CB, 0xA7CB, 0x264 - 0xA7CB},
    {0xA7CC, 0xA7CC, 1},      {0xA7CE, 0xA7CE, 1},
    {0xA7D2, 0xA7D2, 1},      {0xA7D4, 0xA7D4, 1},
    {0xA7DA, 0xA7DA, 1},      {0xA7DC, 0xA7DC, 0x19B - 0xA7DC},
    {0x10D50, 0x10D65, 0x20}, {0x16EA0, 0x16EB8, 0x1B},
};

bool IsBetween(char32_t c, char32_t first, char32_t last) { return c >= first && c <= last; }

bool IsNewerWord(char32_t c) {
  return std::any_of(std::begin(kUnicodeAdditions), std::end(kUnicodeAdditions),
                     [c](const UnicodeAddition& addition) {
                       const std::string_view property = addition.property;
                       const bool is_word = property == "Lu" || property == "Ll" ||
                                            property == "Lt" || property == "Lm" ||
                                            property == "Lo" || property[0] == 'M' ||
                                            property == "Nd" || property == "Pc";
                       return is_word && IsBetween(c, addition.first, addition.last);
                     });
}

}  // namespace

bool IsSpace(char32_t c) {
  return IsBetween(c, 0x9, 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         IsBetween(c, 0x2000, 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// What is Alphabetic beyond letters, marks and Nl are the circled and squared Latin letters.
bool IsWord(char32_t c) {
  if (c == 0x200C || c == 0x200D || IsBetween(c, 0x24B6, 0x24E9) ||
      IsBetween(c, 0x1F130, 0x1F149) || IsBetween(c, 0x1F150, 0x1F169) ||
      IsBetween(c, 0x1F170, 0x1F189)) {
    return true;
  }
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    case UTF8PROC_CATEGORY_CN:
      return IsNewerWord(c);
    default:
      return false;
  }
}

void AppendLowercase(char32_t c, std::string* text) {
  if (c == 0x130) {  // the one letter that becomes two
    text->append("i\u0307");
    return;
  }
  for (const CaseRange& range : kNewerCases) {
    if (IsBetween(c, range.first, range.last)) {
      return AppendUtf8(static_cast<char32_t>(static_cast<int32_t>(c) + range.to_lower), text);
    }
  }
  AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), text);
}

}  // namespace gatehouse
