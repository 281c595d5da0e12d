// Numbers as text: bars, durations, big counts. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gatehouse {

// Terminals whose locale is not UTF-8 get ASCII instead of block elements.
enum class Glyphs { kAscii, kUnicode };

// `num_columns` wide, filled from the left to `share` [0, 1] (values outside are clipped).
std::string HorizontalBar(double share, int num_columns, Glyphs glyphs);

// One column for each value, as high as the value beside the largest one; a value above 0 is always
// visible. More values than columns: neighbours share a column, which shows the largest of them.
// Fewer: up to three columns for each.
std::string ColumnBars(const std::vector<int64_t>& values, int num_columns, Glyphs glyphs);

// The first `num_columns` characters of `text`, which is UTF-8 and one column a character.
std::string Clip(std::string_view text, int num_columns);

std::string DescribeDuration(double seconds);  // 0.52 s, 12.0 s, 3 min 05 s, 2 h 07 min, 3 d 04 h
std::string DescribeBytes(double bytes);       // 512 B, 1.5 MB, 2.0 GB

}  // namespace gatehouse
