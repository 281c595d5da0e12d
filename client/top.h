// `gatehouse top`: shows again and again what the operators' service says.
#pragma once

#include "client/admin_client.h"
#include "client/cli_options.h"
#include "client/terminal.h"

namespace gatehouse {

// Live on a terminal until q or Ctrl-C; elsewhere one line an update, or with --json one object.
// Returns the exit code.
int RunTop(AdminClient& client, const CliOptions& options, InterruptWatcher& watcher);

}  // namespace gatehouse
