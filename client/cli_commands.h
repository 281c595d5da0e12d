// What each command of `gatehouse` does once its flags are parsed. Answers go to standard output,
// everything else to standard error.
#pragma once

#include <memory>

#include "client/cli_options.h"
#include "client/gatehouse_client.h"
#include "client/terminal.h"

namespace gatehouse {

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitBadUsage = 2;
inline constexpr int kExitInterrupted = 130;

// All but those of the operators' service. Returns the exit code. `options` are as ParseCliOptions
// filled them; blocks until done. May be called once.
int RunCommand(GatehouseClient& client, CliOptions& options, InterruptWatcher& watcher);

// Prints that the output cannot be written (an error of WriteAll) and returns the exit code.
int PrintLostOutput(const absl::Status& status);
// The text of a prompt, UTF-8; INVALID_ARGUMENT and what ReadAll returns.
absl::StatusOr<std::string> ReadPrompt(const PromptSource& prompt);
// The deadline, and a word on standard error before each wait of a retry that one would notice.
CallOptions CallOptionsOf(const CliOptions& options);
// Each prints and returns the exit code.
int PrintCallError(GatehouseClient& client, const CliOptions& options, const absl::Status& status);
int PrintBadInput(const CliOptions& options, const absl::Status& status);

// Prints an error that came before or beside a call: one line, or a JSON object with --json.
void PrintError(const absl::Status& status, const std::string& text, bool json);

}  // namespace gatehouse
