// `gatehouse`: the command line client. Parses, connects, runs one command.
#include <unistd.h>

#include <cstdlib>

#include "client/admin_client.h"
#include "client/admin_commands.h"
#include "client/cli_commands.h"
#include "client/cli_options.h"
#include "client/terminal.h"
#include "client/top.h"

namespace gatehouse {
namespace {

int Fail(const absl::Status& status, const CliOptions& options) {
  PrintError(status, std::string(status.message()), options.json);
  return kExitBadUsage;
}

int Main(int argc, char** argv) {
  CliOptions options;
  const ParseOutcome parsed = ParseCliOptions(argc, argv, options);
  if (!parsed.run) {
    WriteAll(parsed.exit_code == 0 ? STDOUT_FILENO : STDERR_FILENO, parsed.output).IgnoreError();
    return parsed.exit_code;
  }
  // gRPC's own log lines (of a failed handshake, say) repeat what the error says. Zero: the user's
  // wish to see them comes first.
  setenv("GRPC_VERBOSITY", "NONE", 0);
  InterruptWatcher watcher;  // before gRPC starts its threads
  const absl::StatusOr<ClientOptions> connection = ToClientOptions(options.connection);
  if (!connection.ok()) return Fail(connection.status(), options);
  if (IsAdmin(options.command)) {
    const auto client = AdminClient::Connect(*connection);
    if (!client.ok()) return Fail(client.status(), options);
    return options.command == CliCommand::kTop ? RunTop(**client, options, watcher)
                                               : RunAdmin(**client, options);
  }
  const auto client = GatehouseClient::Connect(*connection);
  return client.ok() ? RunCommand(**client, options, watcher) : Fail(client.status(), options);
}

}  // namespace
}  // namespace gatehouse

int main(int argc, char** argv) { return gatehouse::Main(argc, argv); }
