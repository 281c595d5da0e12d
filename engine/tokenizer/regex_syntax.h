// Regular expressions of tokenizer.json are written for Oniguruma in Ruby's syntax; PCRE2 reads
// another dialect. Translates the common part and refuses what would mean something else: no
// pattern changes its matches silently.
//
// What differs, and how it is written for PCRE2 (compile with UTF, UCP and MULTILINE):
//   \s \S    White_Space; PCRE2's own \s holds U+180E, too
//   \d \w    Nd; and Alphabetic, M, Nd, Pc
//   \h \v    a hexadecimal digit; U+000B
//   \p{..}   with the characters of Unicode 15 and 16 added (PCRE2 10.42 knows Unicode 14)
//   \p{Han}  the script itself; in PCRE2 it would be the script extensions
//   {,n}     {0,n}
// Refused: nested classes and &&, POSIX classes, back references, calls, (?m) (?x), (?i) other than
// at the start or as (?i:...), letters in (?i) that fold to several characters, \b \G \K \R \X \w
// inside of a negation, possessive or lazy intervals that Ruby reads otherwise, \p{C..}.
// Pure functions, any thread.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace gatehouse {

// INVALID_ARGUMENT names the construct and its offset.
absl::StatusOr<std::string> OnigurumaToPcre2(std::string_view pattern);

}  // namespace gatehouse
