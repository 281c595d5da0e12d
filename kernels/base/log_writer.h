// Takes lines from any thread and writes them from its own, so that a reader who is slow or gone (a
// full pipe) never holds up a thread that has something to say. What waits is bounded; lines beyond
// are counted and reported by one line as soon as there is room.
//
// Owned by a Logger. Any thread may call Write and Flush.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include "kernels/base/mutex.h"

namespace gatehouse {

class LogWriter {
 public:
  static constexpr size_t kMaxWaitingBytes = size_t{1} << 20;  // some 3,000 request lines
  // How long the end and a flush wait for a reader who does not read.
  static constexpr std::chrono::seconds kPatience{1};

  // `lost_line` makes the line that reports lost ones.
  LogWriter(int file_descriptor, std::function<std::string(int64_t num_lines)> lost_line);
  ~LogWriter();  // writes what waits
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

  void Write(std::string_view line);  // with its line feed
  void Flush();                       // what was written before this has left, or is lost

 private:
  void Run();
  void WriteOut(std::string_view text);
  bool GivesUp() GATEHOUSE_EXCLUDES(mutex_);

  const int file_descriptor_;
  const std::function<std::string(int64_t)> lost_line_;

  Mutex mutex_;
  CondVar changed_;  // something waits, or stopping_
  CondVar written_;
  std::string waiting_ GATEHOUSE_GUARDED_BY(mutex_);
  int64_t num_lost_ GATEHOUSE_GUARDED_BY(mutex_) = 0;  // not reported yet
  bool writing_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  bool stopping_ GATEHOUSE_GUARDED_BY(mutex_) = false;
  std::chrono::steady_clock::time_point give_up_ GATEHOUSE_GUARDED_BY(mutex_);  // when stopping_

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace gatehouse
