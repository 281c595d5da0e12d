#include "server/config_option.h"

#include <limits>
#include <string_view>

namespace gatehouse {
namespace {

// host:port or [v6]:port.
Expected CheckAddress(const std::string& text) {
  const size_t colon = text.rfind(':');
  int port = -1;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(text.substr(colon + 1), &port) || port < 0 || port > 65535 ||
      (text.find(':') != colon && text[0] != '[')) {
    return "host:port, such as 127.0.0.1:50051 or [::1]:0 (0: any free port)";
  }
  return {};
}

}  // namespace

Option Text(std::string name, std::string value, std::string help,
            const Field<std::string>& field) {
  return {std::move(name), std::move(value), std::move(help),
          [field](const std::string& text, ServerConfig& config) -> Expected {
            field(config) = text;
            return {};
          },
          [field](const ServerConfig& config) { return Read(field, config); }};
}

Option Bytes(std::string name, std::string help, const Field<int64_t>& field) {
  return {std::move(name), "BYTES", std::move(help),
          [field](const std::string& text, ServerConfig& config) -> Expected {
            constexpr std::pair<std::string_view, int> kUnits[] = {
                {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
            std::string digits = text;
            int shift = 0;
            for (const auto& [unit, unit_shift] : kUnits) {
              if (text.size() > unit.size() && text.ends_with(unit)) {
                digits = text.substr(0, text.size() - unit.size());
                shift = unit_shift;
              }
            }
            int64_t number = 0;
            if (!absl::SimpleAtoi(digits, &number) || number < 0 ||
                number > std::numeric_limits<int64_t>::max() >> shift) {
              return "bytes, such as 4294967296 or 4GiB";
            }
            field(config) = number << shift;
            return {};
          },
          [field](const ServerConfig& config) { return std::to_string(Read(field, config)); }};
}

Option Number(std::string name, std::string help, double low, double high,
              const Field<double>& field) {
  return {
      std::move(name), "X", std::move(help),
      [=](const std::string& text, ServerConfig& config) -> Expected {
        double number = 0;
        if (!absl::SimpleAtod(text, &number) || !(number >= low && number <= high)) {
          return absl::StrFormat("a number from %g to %g", low, high);
        }
        field(config) = number;
        return {};
      },
      [field](const ServerConfig& config) { return absl::StrFormat("%g", Read(field, config)); }};
}

Option Switch(std::string name, std::string help, const Field<bool>& field) {
  return {std::move(name), "", std::move(help),
          [field](const std::string& text, ServerConfig& config) -> Expected {
            if (text != "true" && text != "false" && text != "1" && text != "0") {
              return "true or false";
            }
            field(config) = text == "true" || text == "1";
            return {};
          },
          [field](const ServerConfig& config) {
            return std::string(Read(field, config) ? "true" : "false");
          }};
}

Option Address(std::string name, std::string help, bool may_be_empty,
               const Field<std::string>& field) {
  return {std::move(name), "HOST:PORT", std::move(help),
          [field, may_be_empty](const std::string& text, ServerConfig& config) -> Expected {
            if (!(may_be_empty && text.empty())) {
              if (Expected expected = CheckAddress(text)) return expected;
            }
            field(config) = text;
            return {};
          },
          [field](const ServerConfig& config) { return Read(field, config); }};
}

}  // namespace gatehouse
