#include "kernels/base/log.h"

#include <chrono>
#include <cstdio>
#include <ctime>

namespace gatehouse {
namespace {

constexpr std::string_view kLevelNames[] = {"debug", "info", "warning", "error"};

std::string Timestamp() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto millis =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char date[24], text[32];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(text, sizeof text, "%s.%03dZ", date, static_cast<int>(millis));
  return text;
}

// JSON string; the text form quotes the same way, so that a value never breaks its line.
void AppendQuoted(std::string_view text, std::string& out) {
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      (out += '\\') += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", c);
      out += escaped;
    } else {
      out += c;
    }
  }
  out += '"';
}

bool NeedsQuotes(std::string_view value) {
  return value.empty() || value.find_first_of(" \"\\=\t\r\n") != std::string_view::npos;
}

std::string FormatLine(LogFormat format, LogLevel level, std::string_view message,
                       LogFields fields) {
  const std::string_view name = kLevelNames[static_cast<int>(level)];
  std::string line;
  if (format == LogFormat::kJson) {
    ((line = "{\"time\":\"") += Timestamp()) += "\",\"level\":\"";
    (line += name) += "\",\"message\":";
    AppendQuoted(message, line);
    for (const auto& [key, value] : fields) {
      line += ',';
      AppendQuoted(key, line);
      line += ':';
      AppendQuoted(value, line);
    }
    line += "}\n";
    return line;
  }
  ((line = Timestamp()) += ' ') += name;
  (line += ' ') += message;
  for (const auto& [key, value] : fields) {
    ((line += ' ') += key) += '=';
    if (NeedsQuotes(value)) {
      AppendQuoted(value, line);
    } else {
      line += value;
    }
  }
  line += '\n';
  return line;
}

}  // namespace

Logger::Logger(LogFormat format, LogLevel level, int file_descriptor)
    : format_(format),
      level_(level),
      writer_(std::make_unique<LogWriter>(file_descriptor, [format](int64_t num_lines) {
        return FormatLine(format, LogLevel::kWarning, "log lines lost",
                          {{"lines", std::to_string(num_lines)}});
      })) {}

void Logger::Log(LogLevel level, std::string_view message, LogFields fields) const {
  if (level >= level_.load(std::memory_order_relaxed))
    writer_->Write(FormatLine(format_, level, message, fields));
}

}  // namespace gatehouse
