// Structured log lines on standard error: one line an event, `key=value` text or one JSON object.
// Thread-safe: a line is written with one call. Text of users is never logged.
//
//   logger.Log(LogLevel::kInfo, "request finished", {{"id", id}, {"tokens", "12"}});
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace gatehouse {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

using LogFields = std::initializer_list<std::pair<std::string_view, std::string>>;

class Logger {
 public:
  explicit Logger(LogFormat format = LogFormat::kText, LogLevel level = LogLevel::kInfo,
                  int file_descriptor = 2)
      : format_(format), level_(level), file_descriptor_(file_descriptor) {}
  void Log(LogLevel level, std::string_view message, LogFields fields = {}) const;

 private:
  const LogFormat format_;
  const LogLevel level_;
  const int file_descriptor_;
};

}  // namespace gatehouse
