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
  std::string target;  // empty until the flags are parsed: see SetDefaultTarget
  bool tls = false;    // implied by any of the tls files
  std::string tls_ca_file;
  std::string tls_cert_file;
  std::string tls_key_file;
  std::string tls_server_name;
  std::string token_file;
  int num_retries = 0;  // a load generator measures what fails; only `gatehouse` has a flag for it
};

// `flags` must outlive the parsing. Describes --target as `target_help`.
void AddConnectionFlags(CLI::App& app, ConnectionFlags& flags, const std::string& target_help);

// Where to call when --target was not given: GATEHOUSE_TARGET or the default port of the public
// listener, and for operators GATEHOUSE_ADMIN_TARGET or that of their listener.
enum class Listener { kPublic, kAdmin };
void SetDefaultTarget(Listener listener, ConnectionFlags& flags);
inline constexpr char kPublicTargetHelp[] =
    "The server, host:port or unix:/path (or GATEHOUSE_TARGET; default 127.0.0.1:50051)";

// Reads the files that the flags name, and without a token's file GATEHOUSE_TOKEN: a token is never
// an argument, which everybody on the machine could see. An error says which flag.
absl::StatusOr<ClientOptions> ToClientOptions(const ConnectionFlags& flags);

// What to print for an error of a call: that no server is there, or another one than was meant, and
// what to do about it; or else what the server said.
std::string DescribeCallError(const absl::Status& status, const std::string& target, bool reachable,
                              Listener listener = Listener::kPublic);

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
