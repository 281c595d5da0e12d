#include "kernels/base/log_writer.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

namespace gatehouse {
namespace {

// Whole lines, at most what a pipe that has room takes without blocking, and in one piece: so lines
// of several processes on one pipe stay apart. A longer line comes in pieces.
std::string_view FirstPiece(std::string_view text) {
  const std::string_view piece = text.substr(0, PIPE_BUF);
  const size_t line_end = piece.rfind('\n');
  return line_end == std::string_view::npos ? piece : piece.substr(0, line_end + 1);
}

}  // namespace

LogWriter::LogWriter(int file_descriptor, std::function<std::string(int64_t)> lost_line)
    : file_descriptor_(file_descriptor), lost_line_(std::move(lost_line)) {
  thread_ = std::thread([this] { Run(); });
}

LogWriter::~LogWriter() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    give_up_ = std::chrono::steady_clock::now() + kPatience;
  }
  changed_.NotifyAll();
  thread_.join();
}

void LogWriter::Write(std::string_view line) {
  {
    const MutexLock lock(mutex_);
    if (line.size() > kMaxWaitingBytes - waiting_.size()) {
      ++num_lost_;
    } else {
      waiting_ += line;
    }
  }
  changed_.NotifyAll();
}

void LogWriter::Flush() {
  const auto give_up = std::chrono::steady_clock::now() + kPatience;
  const MutexLock lock(mutex_);
  while (writing_ || !waiting_.empty() || num_lost_ > 0) {
    const auto left = give_up - std::chrono::steady_clock::now();
    if (left <= left.zero()) return;
    written_.WaitFor(mutex_, left);
  }
}

void LogWriter::Run() {
  while (true) {
    std::string text;
    int64_t num_lost = 0;
    {
      const MutexLock lock(mutex_);
      writing_ = false;
      written_.NotifyAll();
      while (waiting_.empty() && num_lost_ == 0 && !stopping_) changed_.Wait(mutex_);
      if (waiting_.empty() && num_lost_ == 0) return;
      text.swap(waiting_);
      num_lost = std::exchange(num_lost_, 0);
      writing_ = true;
    }
    if (num_lost > 0) text += lost_line_(num_lost);
    WriteOut(text);
  }
}

// A full disk or a closed pipe is no reason to stop: the lines are gone, the next may do better.
void LogWriter::WriteOut(std::string_view text) {
  constexpr int kPollMs = 50;
  while (!text.empty()) {
    pollfd descriptor{.fd = file_descriptor_, .events = POLLOUT, .revents = 0};
    const int num_ready = poll(&descriptor, 1, kPollMs);
    if (num_ready == 0 || (num_ready < 0 && errno == EINTR)) {
      if (GivesUp()) return;
      continue;
    }
    const std::string_view piece = FirstPiece(text);
    const ssize_t num_written = write(file_descriptor_, piece.data(), piece.size());
    if (num_written < 0 && errno != EINTR && errno != EAGAIN) return;
    text.remove_prefix(static_cast<size_t>(std::max<ssize_t>(0, num_written)));
  }
}

bool LogWriter::GivesUp() {
  const MutexLock lock(mutex_);
  return stopping_ && std::chrono::steady_clock::now() >= give_up_;
}

}  // namespace gatehouse
