// The whole terminal as a canvas, given back as it was.
#pragma once

#include <termios.h>

#include <chrono>
#include <mutex>
#include <string>
#include <vector>

#include "client/top_view.h"

namespace gatehouse {

enum class Key { kNone, kQuit, kUp, kDown, kPageUp, kPageDown };

// Takes the terminal of standard output (alternate screen, no cursor, no echo) until it is restored
// or destroyed. One thread draws and reads keys; Restore may come from any thread.
class TerminalScreen {
 public:
  TerminalScreen();
  ~TerminalScreen() { Restore(); }
  TerminalScreen(const TerminalScreen&) = delete;
  TerminalScreen& operator=(const TerminalScreen&) = delete;

  static TopSize Size();  // 24 x 80 if the terminal does not say

  // False when the terminal is gone.
  bool Draw(const std::vector<std::string>& lines);
  // Waits for at most `timeout`. The end of standard input is kQuit; where that is no terminal only
  // time passes.
  Key WaitForKey(std::chrono::milliseconds timeout);
  // The terminal is as it was; later calls of Draw do nothing.
  void Restore();

 private:
  termios before_{};     // filled while has_keys_ is made, hence before it
  const bool has_keys_;  // standard input is a terminal, too
  std::mutex mutex_;
  bool restored_ = false;  // guarded by mutex_
};

}  // namespace gatehouse
