#include "server/trace_context.h"

namespace gatehouse {

// version "-" trace id "-" parent id "-" flags, in lower-case hexadecimal digits: 2, 32, 16, 2.
std::string ReadTraceparent(std::string_view header) {
  constexpr size_t kLength = 55;
  if (header.size() < kLength) return "";
  const std::string_view text = header.substr(0, kLength);
  for (size_t i = 0; i < kLength; ++i) {
    const bool is_dash = i == 2 || i == 35 || i == 52;
    if (is_dash != (text[i] == '-')) return "";
    if (!is_dash && std::string_view("0123456789abcdef").find(text[i]) == std::string_view::npos) {
      return "";
    }
  }
  const std::string_view version = text.substr(0, 2);
  if (version == "ff" || (version == "00" && header.size() != kLength)) return "";
  if (header.size() > kLength && header[kLength] != '-') return "";
  const auto is_zero = [](std::string_view id) {
    return id.find_first_not_of('0') == std::string_view::npos;
  };
  if (is_zero(text.substr(3, 32)) || is_zero(text.substr(36, 16))) return "";
  return std::string(text);
}

}  // namespace gatehouse
