#include "client/terminal_screen.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "client/terminal.h"

namespace gatehouse {
namespace {

// Alternate screen, cursor hidden, no wrapping; and back.
constexpr char kEnter[] = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
constexpr char kLeave[] = "\x1b[?7h\x1b[?25h\x1b[?1049l";

Key KeyOf(std::string_view bytes) {
  if (bytes.empty() || bytes == "q" || bytes == "Q" || bytes == "\x04") return Key::kQuit;
  if (bytes == "k" || bytes == "\x1b[A" || bytes == "\x1bOA") return Key::kUp;
  if (bytes == "j" || bytes == "\x1b[B" || bytes == "\x1bOB") return Key::kDown;
  if (bytes == "\x1b[5~") return Key::kPageUp;
  if (bytes == "\x1b[6~" || bytes == " ") return Key::kPageDown;
  return Key::kNone;
}

}  // namespace

TerminalScreen::TerminalScreen()
    : has_keys_(isatty(STDIN_FILENO) != 0 && tcgetattr(STDIN_FILENO, &before_) == 0) {
  if (has_keys_) {
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    raw.c_cc[VSUSP] = _POSIX_VDISABLE;  // a stopped program would leave the terminal like this
    tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
  }
  WriteAll(STDOUT_FILENO, kEnter).IgnoreError();  // Draw will notice
}

TopSize TerminalScreen::Size() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0) {
    return {};
  }
  return {.num_rows = size.ws_row, .num_columns = size.ws_col};
}

bool TerminalScreen::Draw(const std::vector<std::string>& lines) {
  std::string text = "\x1b[H";
  for (size_t i = 0; i < lines.size(); ++i) {
    text += lines[i] + "\x1b[K";
    if (i + 1 < lines.size()) text += "\r\n";
  }
  text += "\x1b[J";
  const std::lock_guard<std::mutex> lock(mutex_);
  return restored_ || WriteAll(STDOUT_FILENO, text).ok();
}

Key TerminalScreen::WaitForKey(std::chrono::milliseconds timeout) {
  pollfd input{.fd = has_keys_ ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0};
  if (poll(&input, 1, static_cast<int>(timeout.count())) <= 0) return Key::kNone;
  char bytes[16];
  const ssize_t num_read = read(STDIN_FILENO, bytes, sizeof(bytes));
  if (num_read < 0) return errno == EINTR ? Key::kNone : Key::kQuit;
  return KeyOf({bytes, static_cast<size_t>(num_read)});
}

void TerminalScreen::Restore() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (restored_) return;
  restored_ = true;
  WriteAll(STDOUT_FILENO, kLeave).IgnoreError();
  if (has_keys_) tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
}

}  // namespace gatehouse
