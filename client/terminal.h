// The process's edges: writing to descriptors that may be closed, reading prompts, Ctrl-C.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gatehouse {

// Writes all of `text`, however often write(2) stops short. ABORTED when the reader is gone (EPIPE:
// SIGPIPE must be ignored), INTERNAL otherwise.
absl::Status WriteAll(int file_descriptor, std::string_view text);

// Reads a whole file, or standard input for "-". NOT_FOUND, INVALID_ARGUMENT (not readable as a
// file), or RESOURCE_EXHAUSTED beyond `max_bytes`.
absl::StatusOr<std::string> ReadAll(const std::string& path, size_t max_bytes);

// Ctrl-C and SIGTERM. The first one runs the action, or ends the process with 130 when there is
// none; the second kills, whatever the program does by then. Ignores SIGPIPE too.
//
// Make it once, in main, before any other thread exists: threads inherit the blocked signals, and
// the watcher's own thread, which runs until the process ends, is the only one that takes them.
class InterruptWatcher {
 public:
  InterruptWatcher();

  // Replaces the action. It runs at most once: on the watcher's thread, or here and now if the
  // interrupt has come already. It runs under the watcher's lock, so that after
  // OnInterrupt(nullptr) it can no longer be running: it must be short and not call back.
  void OnInterrupt(std::function<void()> action);
  // The same for a program that lives on: `action` runs at every Ctrl-C, none of which counts as
  // the first. SIGTERM ends the process all the same.
  void OnEachInterrupt(std::function<void()> action);
  bool interrupted() const;

 private:
  struct Shared;
  const std::shared_ptr<Shared> shared_;  // with the thread, which outlives main's objects
};

}  // namespace gatehouse
