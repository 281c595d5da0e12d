// Structured log lines on standard error: one line an event, `key=value` text or one JSON object.
// Any thread; Log never waits for whoever reads (LogWriter). Text of users is never logged.
//
//   logger.Log(LogLevel::kInfo, "request finished", {{"id", id}, {"tokens", "12"}});
#pragma once

#include <atomic>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/base/log_writer.h"

namespace gatehouse {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

using LogFields = std::initializer_list<std::pair<std::string_view, std::string>>;

class Logger {
 public:
  explicit Logger(LogFormat format = LogFormat::kText, LogLevel level = LogLevel::kInfo,
                  int file_descriptor = 2);
  void Log(LogLevel level, std::string_view message, LogFields fields = {}) const;
  // Lines below `level` are left out from now on. Returns what was in force.
  LogLevel SetLevel(LogLevel level) { return level_.exchange(level, std::memory_order_relaxed); }
  // Before something else writes to the same place.
  void Flush() const { writer_->Flush(); }

 private:
  const LogFormat format_;
  std::atomic<LogLevel> level_;
  const std::unique_ptr<LogWriter> writer_;
};

}  // namespace gatehouse
