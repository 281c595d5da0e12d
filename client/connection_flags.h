// The flags that say where the server is and who is calling, shared by every client program.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/gatehouse_client.h"

namespace CLI {
class App;
}

namespace gatehouse {

struct ConnectionFlags {
  std::string target = "127.0.0.1:50051";
  bool tls = false;  // implied by any of the tls files
  std::string tls_ca_file;
  std::string tls_cert_file;
  std::string tls_key_file;
  std::string tls_server_name;
  std::string auth_token_file;
};

// `flags` must outlive the parsing. Defaults come from GATEHOUSE_TARGET and
// GATEHOUSE_AUTH_TOKEN_FILE where set.
void AddConnectionFlags(CLI::App& app, ConnectionFlags& flags);

// Reads the files that the flags name; an error says which flag.
absl::StatusOr<ClientOptions> ToClientOptions(const ConnectionFlags& flags);

// What to print for an error of a call: that no server is there and what to do about it, or what
// the server said.
std::string DescribeCallError(const absl::Status& status, const std::string& target,
                              bool reachable);

// How a parse ended: go on, or print and exit.
struct ParseOutcome {
  bool run = false;
  int exit_code = 0;
  std::string output =
      "";  // for standard output if exit_code is 0 (help, version), else standard error
};

// Parses with `app` and turns every fault into one line with the nearest flag or command that
// exists.
ParseOutcome ParseFlags(CLI::App& app, int argc, const char* const* argv);

}  // namespace gatehouse
