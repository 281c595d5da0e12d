// One setting of the server: its name, and how its text becomes a member of ServerConfig and back.
// server_config.cc has the table of all of them. Values; any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "server/server_config.h"

namespace gatehouse {

// Set returns what was expected, or nothing when `text` is good. Get prints a value that Set takes.
struct Option {
  std::string name;   // without dashes
  std::string value;  // what --help calls it (N, FILE); empty for a switch
  std::string help;
  std::function<std::optional<std::string>(const std::string& text, ServerConfig& config)> set;
  std::function<std::string(const ServerConfig& config)> get;
  bool is_flag = true;  // false: only environment and file
};

using Expected = std::optional<std::string>;

// A reference to one member of the tree.
template <typename T>
using Field = std::function<T&(ServerConfig&)>;

template <typename T>
const T& Read(const Field<T>& field, const ServerConfig& config) {
  return field(const_cast<ServerConfig&>(config));  // the lambdas only select
}

Option Text(std::string name, std::string value, std::string help, const Field<std::string>& field);
Option Bytes(std::string name, std::string help, const Field<int64_t>& field);
Option Number(std::string name, std::string help, double low, double high,
              const Field<double>& field);
Option Switch(std::string name, std::string help, const Field<bool>& field);
// host:port or [v6]:port.
Option Address(std::string name, std::string help, bool may_be_empty,
               const Field<std::string>& field);

struct Range {
  int64_t low = 0;
  int64_t high = 0;
};

template <typename T>
Option Whole(std::string name, std::string help, Range range, const Field<T>& field) {
  return {std::move(name), "N", std::move(help),
          [field, range](const std::string& text, ServerConfig& config) -> Expected {
            int64_t number = 0;
            if (!absl::SimpleAtoi(text, &number) || number < range.low || number > range.high) {
              return absl::StrFormat("a whole number from %d to %d", range.low, range.high);
            }
            field(config) = static_cast<T>(number);
            return {};
          },
          [field](const ServerConfig& config) { return std::to_string(Read(field, config)); }};
}

}  // namespace gatehouse
