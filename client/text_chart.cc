#include "client/text_chart.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"

namespace gatehouse {
namespace {

constexpr int kMaxColumnsOfValue = 3;

// Of rising height; the first is for 0.
std::vector<std::string> Heights(Glyphs glyphs) {
  if (glyphs == Glyphs::kAscii) return {" ", ".", ":", "-", "=", "+", "*", "#", "@"};
  return {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
}

// Of `num_groups` runs of neighbours, which differ by at most one in length, the largest value.
std::vector<int64_t> LargestOfGroups(const std::vector<int64_t>& values, size_t num_groups) {
  std::vector<int64_t> largest;
  for (size_t i = 0; i < num_groups; ++i) {
    const auto begin = values.begin() + static_cast<int64_t>(i * values.size() / num_groups);
    const auto end = values.begin() + static_cast<int64_t>((i + 1) * values.size() / num_groups);
    largest.push_back(*std::max_element(begin, end));
  }
  return largest;
}

}  // namespace

std::string HorizontalBar(double share, int num_columns, Glyphs glyphs) {
  const double clipped = std::isfinite(share) ? std::clamp(share, 0.0, 1.0) : 0;
  const int num_full = static_cast<int>(std::lround(clipped * num_columns));
  std::string bar;
  for (int i = 0; i < num_columns; ++i) {
    bar += glyphs == Glyphs::kAscii ? (i < num_full ? "#" : "-") : (i < num_full ? "█" : "░");
  }
  return bar;
}

std::string ColumnBars(const std::vector<int64_t>& values, int num_columns, Glyphs glyphs) {
  if (values.empty() || num_columns < 1) return "";
  const std::vector<std::string> heights = Heights(glyphs);
  const auto columns = static_cast<size_t>(num_columns);
  const std::vector<int64_t> shown =
      values.size() > columns ? LargestOfGroups(values, columns) : values;
  const int64_t largest = *std::max_element(shown.begin(), shown.end());
  const int columns_of_value =
      std::clamp(num_columns / static_cast<int>(shown.size()), 1, kMaxColumnsOfValue);
  std::string bars;
  for (const int64_t value : shown) {
    size_t height = 0;
    if (value > 0) {
      const double share = static_cast<double>(value) / static_cast<double>(largest);
      const auto max_height = static_cast<double>(heights.size() - 1);
      height = std::max(size_t{1}, static_cast<size_t>(std::lround(share * max_height)));
    }
    for (int i = 0; i < std::max(1, columns_of_value - 1); ++i) bars += heights[height];
    if (columns_of_value > 1) bars += " ";  // neighbours stay apart where there is room
  }
  return bars;
}

std::string Clip(std::string_view text, int num_columns) {
  size_t end = 0;
  for (int column = 0; end < text.size(); ++end) {
    const bool begins_character = (static_cast<unsigned char>(text[end]) & 0xC0) != 0x80;
    if (begins_character && ++column > num_columns) break;
  }
  return std::string(text.substr(0, end));
}

std::string DescribeDuration(double seconds) {
  if (!(seconds >= 0)) return "?";
  if (seconds < 9.995) return absl::StrFormat("%.2f s", seconds);
  if (seconds < 59.95) return absl::StrFormat("%.1f s", seconds);
  // Above this the years of no server are counted any more, and the conversion stays defined.
  const auto whole = static_cast<int64_t>(std::min(seconds, 1e12));
  if (whole < 3600) return absl::StrFormat("%d min %02d s", whole / 60, whole % 60);
  if (whole < 86'400) return absl::StrFormat("%d h %02d min", whole / 3600, whole % 3600 / 60);
  return absl::StrFormat("%d d %02d h", whole / 86'400, whole % 86'400 / 3600);
}

std::string DescribeBytes(double bytes) {
  const char* const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
  size_t unit = 0;
  while (bytes >= 999.5 && unit + 1 < std::size(units)) {
    bytes /= 1000;
    ++unit;
  }
  const int num_decimals = unit == 0 || bytes >= 99.95 ? 0 : 1;
  return absl::StrFormat("%.*f %s", num_decimals, bytes, units[unit]);
}

}  // namespace gatehouse
