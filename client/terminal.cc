#include "client/terminal.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <mutex>
#include <thread>

#include "absl/strings/str_format.h"

namespace gatehouse {
namespace {

constexpr int kExitInterrupted = 130;  // 128 + SIGINT, as shells have it

sigset_t InterruptSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

}  // namespace

absl::Status WriteAll(int file_descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t num_written = write(file_descriptor, text.data(), text.size());
    if (num_written >= 0) {
      text.remove_prefix(static_cast<size_t>(num_written));
    } else if (errno == EPIPE) {
      return absl::AbortedError("the reader of the output is gone");
    } else if (errno != EINTR) {
      return absl::InternalError(absl::StrFormat("cannot write output: %s", std::strerror(errno)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadAll(const std::string& path, size_t max_bytes) {
  const int file_descriptor = path == "-" ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const char* const name = path == "-" ? "standard input" : path.c_str();
  if (file_descriptor < 0) {
    return absl::NotFoundError(absl::StrFormat("cannot open %s: %s", name, std::strerror(errno)));
  }
  std::string content;
  absl::Status status;
  char chunk[1 << 16];
  while (true) {
    const ssize_t num_read = read(file_descriptor, chunk, sizeof(chunk));
    if (num_read == 0) break;
    if (num_read < 0) {
      if (errno == EINTR) continue;
      status = absl::InvalidArgumentError(
          absl::StrFormat("cannot read %s: %s", name, std::strerror(errno)));
      break;
    }
    content.append(chunk, static_cast<size_t>(num_read));
    if (content.size() > max_bytes) {
      status = absl::ResourceExhaustedError(
          absl::StrFormat("%s is larger than %d bytes", name, max_bytes));
      break;
    }
  }
  if (file_descriptor != STDIN_FILENO) close(file_descriptor);
  if (!status.ok()) return status;
  return content;
}

struct InterruptWatcher::Shared {
  std::mutex mutex;
  bool interrupted = false;      // guarded by mutex
  std::function<void()> action;  // guarded by mutex
  bool lives_on = false;         // guarded by mutex

  void Watch() {
    const sigset_t signals = InterruptSignals();
    while (true) {
      int signal_number = 0;
      sigwait(&signals, &signal_number);
      const std::lock_guard<std::mutex> lock(mutex);
      if (lives_on && action != nullptr && signal_number == SIGINT) {
        action();
        continue;
      }
      // The second one must kill even if cancelling hangs. Taken here and not by the default
      // action, so that the exit code is the same.
      if (interrupted || action == nullptr || lives_on) _exit(kExitInterrupted);
      interrupted = true;
      action();
      action = nullptr;
    }
  }
};

InterruptWatcher::InterruptWatcher() : shared_(std::make_shared<Shared>()) {
  signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of write, not the end
  const sigset_t signals = InterruptSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([shared = shared_] { shared->Watch(); }).detach();
}

void InterruptWatcher::OnInterrupt(std::function<void()> action) {
  const std::lock_guard<std::mutex> lock(shared_->mutex);
  if (shared_->interrupted && action != nullptr) {
    action();
    return;
  }
  shared_->action = std::move(action);
  shared_->lives_on = false;
}

void InterruptWatcher::OnEachInterrupt(std::function<void()> action) {
  const std::lock_guard<std::mutex> lock(shared_->mutex);
  shared_->action = std::move(action);
  shared_->lives_on = true;
}

bool InterruptWatcher::interrupted() const {
  const std::lock_guard<std::mutex> lock(shared_->mutex);
  return shared_->interrupted;
}

}  // namespace gatehouse
