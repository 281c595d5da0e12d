// Text on its way in (is it UTF-8?) and out (is it safe to show?). Pure functions, any thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gatehouse {

// Where `text` stops being UTF-8 (overlong forms, surrogates and values above U+10FFFF count as
// wrong), or nothing.
std::optional<size_t> FirstInvalidUtf8(std::string_view text);

// What a model writes must not move the cursor, ring or reprogram a terminal: control characters
// other than newline and tab come out as \xNN (C1 controls as \u00NN). `text` is UTF-8.
std::string TerminalSafe(std::string_view text);

// For the check of a flag that takes an unsigned number, where -1 would become 2^64 - 1: empty, or
// what is wrong.
std::string CheckNotNegative(const std::string& number);

// Of `candidates`, the one that `word` was most likely meant to be: at most a third of its letters
// (at least one) wrong, missing, added or swapped with their neighbour; empty if none is that near.
std::string NearestWord(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace gatehouse
