#include "client/chat_command.h"

#include <unistd.h>

#include <atomic>
#include <iostream>
#include <optional>
#include <string>

#include "absl/strings/str_format.h"
#include "client/chat_session.h"
#include "client/cli_commands.h"
#include "client/generate_output.h"
#include "client/text.h"

namespace gatehouse {
namespace {

constexpr std::string_view kPrompt = "> ";

struct AnswerOfModel {
  std::string text;
  absl::Status status;
  absl::Status written;
  bool cancelled = false;
};

// Streams one answer to standard output.
AnswerOfModel StreamAnswer(GatehouseClient& client, const CliOptions& options,
                           const v1::GenerateRequest& request, InterruptWatcher& watcher) {
  const auto now = [] { return std::chrono::steady_clock::now(); };
  GenerateOutput output({.json = options.json, .terminal = isatty(STDOUT_FILENO) != 0}, now());
  const std::unique_ptr<GenerateStream> stream = client.Generate(request, CallOptionsOf(options));
  std::atomic<bool> cancelled = false;
  watcher.OnEachInterrupt([&] {
    cancelled = true;
    stream->Cancel();
  });
  AnswerOfModel answer;
  v1::GenerateResponse event;
  while (answer.written.ok() && stream->Next(event)) {
    answer.text += event.delta().text();
    answer.written = WriteAll(STDOUT_FILENO, output.OnEvent(event, now()));
  }
  if (!answer.written.ok()) stream->Cancel();
  answer.status = stream->Finish();
  watcher.OnEachInterrupt(nullptr);
  answer.cancelled = cancelled;
  if (answer.written.ok()) answer.written = WriteAll(STDOUT_FILENO, output.OnEnd());
  if (options.stats) WriteAll(STDERR_FILENO, output.Stats(now())).IgnoreError();
  return answer;
}

int AnswerOnce(GatehouseClient& client, const CliOptions& options, InterruptWatcher& watcher) {
  const absl::StatusOr<std::string> text = ReadPrompt({.has_text = false, .text = "", .file = "-"});
  if (!text.ok()) return PrintBadInput(options, text.status());
  ChatSession session(options.generate);
  const AnswerOfModel answer = StreamAnswer(client, options, session.Ask(*text), watcher);
  if (answer.cancelled) return kExitInterrupted;
  if (!answer.written.ok()) return kExitFailed;
  return answer.status.ok() ? kExitDone : PrintCallError(client, options, answer.status);
}

// Nothing at the end of the input.
std::optional<std::string> ReadLine(InterruptWatcher& watcher) {
  WriteAll(STDERR_FILENO, kPrompt).IgnoreError();
  // The terminal itself drops the line that was being typed.
  watcher.OnEachInterrupt(
      [] { WriteAll(STDERR_FILENO, "\n(Ctrl-D ends the chat)\n> ").IgnoreError(); });
  std::string line;
  const bool more = static_cast<bool>(std::getline(std::cin, line));
  watcher.OnEachInterrupt(nullptr);
  if (more) return line;
  WriteAll(STDERR_FILENO, "\n").IgnoreError();
  return std::nullopt;
}

}  // namespace

int RunChat(GatehouseClient& client, const CliOptions& options, InterruptWatcher& watcher) {
  if (isatty(STDIN_FILENO) == 0) return AnswerOnce(client, options, watcher);
  ChatSession session(options.generate);
  while (const std::optional<std::string> line = ReadLine(watcher)) {
    if (line->empty()) continue;
    if (FirstInvalidUtf8(*line).has_value()) {
      PrintError(absl::InvalidArgumentError("not UTF-8"), "the line is not UTF-8", options.json);
      continue;
    }
    const AnswerOfModel answer = StreamAnswer(client, options, session.Ask(*line), watcher);
    session.Answer(answer.text);
    if (!answer.written.ok()) return kExitFailed;
    if (!answer.status.ok() && !answer.cancelled) PrintCallError(client, options, answer.status);
  }
  return kExitDone;
}

}  // namespace gatehouse
