// What each command of `gatehouse admin` does once its flags are parsed.
#pragma once

#include "client/admin_client.h"
#include "client/cli_options.h"
#include "client/text_chart.h"

namespace gatehouse {

// Returns the exit code; blocks until done.
int RunAdmin(AdminClient& client, const CliOptions& options);

// Prints the error of a call and returns the exit code.
int PrintAdminError(AdminClient& client, const CliOptions& options, const absl::Status& status);

// What the terminal's locale can show.
Glyphs TerminalGlyphs();

}  // namespace gatehouse
