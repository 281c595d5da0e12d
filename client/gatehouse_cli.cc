// `gatehouse`: the command line client. Parses, connects, runs one command.
#include <unistd.h>

#include "client/cli_commands.h"
#include "client/cli_options.h"
#include "client/terminal.h"

int main(int argc, char** argv) {
  using namespace gatehouse;
  CliOptions options;
  const ParseOutcome parsed = ParseCliOptions(argc, argv, options);
  if (!parsed.run) {
    WriteAll(parsed.exit_code == 0 ? STDOUT_FILENO : STDERR_FILENO, parsed.output).IgnoreError();
    return parsed.exit_code;
  }
  InterruptWatcher watcher;  // before gRPC starts its threads
  const absl::StatusOr<ClientOptions> connection = ToClientOptions(options.connection);
  absl::Status status = connection.status();
  if (connection.ok()) {
    const auto client = GatehouseClient::Connect(*connection);
    if (client.ok()) return RunCommand(**client, options, watcher);
    status = client.status();
  }
  PrintError(status, std::string(status.message()), options.json);
  return kExitBadUsage;
}
