// `gatehouse chat`: a conversation on the terminal, or one question on standard input.
//
// On a terminal a line is a message; Ctrl-C ends the answer that is being written (what came of it
// stays in the conversation), Ctrl-D ends the conversation. An answer that fails takes its question
// back and ends nothing.
#pragma once

#include "client/cli_options.h"
#include "client/gatehouse_client.h"
#include "client/terminal.h"

namespace gatehouse {

// Returns the exit code.
int RunChat(GatehouseClient& client, const CliOptions& options, InterruptWatcher& watcher);

}  // namespace gatehouse
