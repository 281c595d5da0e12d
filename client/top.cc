#include "client/top.h"

#include <unistd.h>

#include <ctime>

#include "absl/strings/str_format.h"
#include "client/admin_commands.h"
#include "client/admin_output.h"
#include "client/cli_commands.h"
#include "client/json_output.h"
#include "client/terminal_screen.h"
#include "client/top_view.h"

namespace gatehouse {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kDefaultTimeout{5000};
constexpr milliseconds kMaxKeyWait{100};  // also how soon a new size of the terminal is noticed

struct Answer {
  v1::ServerStatus status;
  v1::ExpertLoad load;            // empty while there is no model
  v1::RebalanceStatus rebalance;  // empty where there is one rank
};

absl::StatusOr<v1::RebalanceStatus> AskRebalance(AdminClient& client, const CallOptions& call) {
  v1::RebalanceStatus now;
  const absl::Status asked =
      client.WatchRebalance({}, call, [&](const v1::RebalanceStatus& status) {
        now = status;
        return false;  // the first is how it stands
      });
  if (!asked.ok()) return asked;
  return now;
}

absl::StatusOr<Answer> Ask(AdminClient& client, const CliOptions& options) {
  const CallOptions call{.timeout =
                             options.timeout_seconds > 0 ? options.timeout() : kDefaultTimeout};
  absl::StatusOr<v1::ServerStatus> status = client.GetStatus(call);
  if (!status.ok()) return status.status();
  absl::StatusOr<v1::ExpertLoad> load = client.GetExpertLoad(options.admin.experts, call);
  const bool has_load = load.ok();
  if (!has_load && status->state() != v1::ServerStatus::LOADING) return load.status();
  Answer answer{*std::move(status), has_load ? *std::move(load) : v1::ExpertLoad(), {}};
  if (answer.status.ranks_size() > 1 && has_load) {
    absl::StatusOr<v1::RebalanceStatus> rebalance = AskRebalance(client, call);
    if (!rebalance.ok()) return rebalance.status();
    answer.rebalance = *std::move(rebalance);
  }
  return answer;
}

// {"unix_seconds": ..., "status": {...}, "experts": {...}, "rebalance": {...}}
std::string JsonLine(const Answer& answer) {
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  std::string status = ToJsonLine(answer.status);
  std::string load = ToJsonLine(answer.load);
  std::string rebalance = ToJsonLine(answer.rebalance);
  for (std::string* line : {&status, &load, &rebalance}) line->pop_back();  // the line ends
  return absl::StrFormat(
      "{\"unix_seconds\": %.3f, \"status\": %s, \"experts\": %s, \"rebalance\": %s}\n", now, status,
      load, rebalance);
}

std::string PlainLine(const Answer& answer) {
  const v1::LayerExpertLoad* worst = nullptr;
  for (const v1::LayerExpertLoad& layer : answer.load.layers()) {
    if (worst == nullptr || layer.imbalance() > worst->imbalance()) worst = &layer;
  }
  std::string line = DescribeStatusLine(answer.status);
  if (worst != nullptr) {
    line += absl::StrFormat("  imbalance %.2f (layer %d)", worst->imbalance(), worst->layer());
  }
  return line + "\n";
}

int RunLines(AdminClient& client, const CliOptions& options, Answer answer) {
  for (int64_t num_updates = 1;; ++num_updates) {
    const absl::Status written =
        WriteAll(STDOUT_FILENO, options.json ? JsonLine(answer) : PlainLine(answer));
    if (!written.ok()) return PrintLostOutput(written);
    if (num_updates == options.admin.max_updates) return kExitDone;
    usleep(static_cast<useconds_t>(options.admin.interval().count()) * 1000);
    absl::StatusOr<Answer> next = Ask(client, options);
    if (!next.ok()) return PrintAdminError(client, options, next.status());
    answer = *std::move(next);
  }
}

// What is shown now, from answer to answer.
class LiveView {
 public:
  LiveView(const CliOptions& options, Answer answer) {
    frame_.target = options.connection.target;
    Show(std::move(answer));
  }

  void Show(Answer answer) {
    window_.Add(Clock::now(), answer.load);
    frame_.status = std::move(answer.status);
    frame_.rebalance = std::move(answer.rebalance);
    frame_.load = window_.Recent();
    frame_.load_seconds = window_.seconds();
    frame_.problem.clear();
  }
  void ShowProblem(std::string problem) { frame_.problem = std::move(problem); }

  bool DrawOn(TerminalScreen& screen) {
    size_ = TerminalScreen::Size();
    return screen.Draw(DrawTop(frame_, size_, TerminalGlyphs(), first_layer_));
  }
  void Scroll(Key key) {
    const int page = size_.num_rows / 2;
    first_layer_ += key == Key::kUp         ? -1
                    : key == Key::kDown     ? 1
                    : key == Key::kPageUp   ? -page
                    : key == Key::kPageDown ? page
                                            : 0;
  }
  bool size_changed() const {
    const TopSize now = TerminalScreen::Size();
    return now.num_rows != size_.num_rows || now.num_columns != size_.num_columns;
  }

 private:
  TopFrame frame_;
  LoadWindow window_;
  TopSize size_;
  int first_layer_ = 0;
};

// Draws and takes keys until `next_update`. True: go on.
bool LiveUntil(Clock::time_point next_update, LiveView& view, TerminalScreen& screen) {
  if (!view.DrawOn(screen)) return false;
  for (auto left = next_update - Clock::now(); left.count() > 0;
       left = next_update - Clock::now()) {
    const milliseconds wait = std::chrono::ceil<milliseconds>(left);
    const Key key = screen.WaitForKey(std::min(wait, kMaxKeyWait));
    if (key == Key::kQuit) return false;
    if (key == Key::kNone && !view.size_changed()) continue;
    view.Scroll(key);
    if (!view.DrawOn(screen)) return false;
  }
  return true;
}

int RunLive(AdminClient& client, const CliOptions& options, Answer answer,
            InterruptWatcher& watcher) {
  LiveView view(options, std::move(answer));
  TerminalScreen screen;
  // Nothing else has to be undone, and a call to a server that hangs must not hold us.
  watcher.OnInterrupt([&screen] {
    screen.Restore();
    _exit(kExitInterrupted);
  });
  int64_t num_updates = 1;
  while (LiveUntil(Clock::now() + options.admin.interval(), view, screen)) {
    if (num_updates++ == options.admin.max_updates) break;
    absl::StatusOr<Answer> next = Ask(client, options);
    if (next.ok()) {
      view.Show(*std::move(next));
    } else {
      view.ShowProblem(absl::StrFormat("no answer, trying again: %s",
                                       absl::StatusCodeToString(next.status().code())));
    }
  }
  watcher.OnInterrupt(nullptr);
  return kExitDone;
}

}  // namespace

int RunTop(AdminClient& client, const CliOptions& options, InterruptWatcher& watcher) {
  absl::StatusOr<Answer> first = Ask(client, options);
  if (!first.ok()) return PrintAdminError(client, options, first.status());
  if (options.json || isatty(STDOUT_FILENO) == 0) {
    return RunLines(client, options, *std::move(first));
  }
  return RunLive(client, options, *std::move(first), watcher);
}

}  // namespace gatehouse
