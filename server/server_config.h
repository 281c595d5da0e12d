// Everything the server is told: flags, GATEHOUSE_* environment and a YAML file, in that order of
// strength, made into one validated tree before anything starts. Values; any thread.
//
//   --max-sequences 32      GATEHOUSE_MAX_SEQUENCES=32      max-sequences: 32
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine_config.h"
#include "kernels/base/log.h"
#include "server/limits.h"

namespace gatehouse {

struct BackendChoice {
  std::string name = "auto";  // the first of CompiledBackends()
  std::string isa;            // empty: the best this machine has. GATEHOUSE_ISA, for tests
  int num_threads = 0;        // of all ranks; 0: the CPUs that this process may use
  int num_ranks = 1;          // of this process
};

struct TlsFiles {
  std::string certificate;  // PEM chain
  std::string key;          // PEM
  std::string client_ca;    // PEM; not empty: clients must show a certificate that it signed
  bool enabled() const { return !certificate.empty(); }
};

// Bearer tokens. At most one of the two; none: callers are the tenant "default".
struct AuthFiles {
  std::string tokens;   // a token a line, all of the tenant "default"
  std::string tenants;  // YAML
  bool enabled() const { return !tokens.empty() || !tenants.empty(); }
};

struct AdminOptions {
  std::string listen = "127.0.0.1:50052";  // empty: no such listener
  std::string token_file;                  // operators' tokens, none of the tenants'
  std::string client_ca;                   // PEM; as TlsFiles::client_ca, of operators
};

// Ranks in other processes. The first rank is the server that clients know.
struct DeploymentOptions {
  bool is_worker = false;                  // --role worker
  int num_workers = 0;                     // besides the first rank; 0: no such listener
  std::string listen = "127.0.0.1:50053";  // of the first rank, for workers
  std::string join;                        // the same, as a worker finds it
  std::string address = "127.0.0.1";       // of this host, where other ranks reach it
  std::string token_file;                  // what all ranks of the deployment know
  std::string ca;                          // PEM; signed the certificates of all ranks
};

struct ServerConfig {
  EngineConfig engine;
  DeploymentOptions deployment;
  BackendChoice backend;
  std::string listen = "127.0.0.1:50051";
  std::string metrics_listen = "127.0.0.1:9464";  // empty: no such listener
  std::optional<int> metrics_level;  // absent: 2 while layers * experts <= 2,048, else 1
  TlsFiles tls;
  AuthFiles auth;
  AdminOptions admin;
  std::string routing_config;       // YAML of v1::RoutingPolicy; empty: exact alone
  std::string routing_secret_file;  // empty: drawn at the start
  bool insecure = false;            // off loopback without TLS
  double drain_seconds = 30;        // Kubernetes' grace period, nearly
  LogFormat log_format = LogFormat::kText;
  LogLevel log_level = LogLevel::kInfo;
  std::string ready_file;
  bool check = false;  // load, print the memory plan, exit

  ServerLimits limits;  // not settable: no operator has asked yet
};

// What a command line asks for: to serve, or to print `text` on standard output and exit with 0.
struct CommandLine {
  ServerConfig config;
  bool print = false;
  std::string text;
};

using EnvironmentFn = std::function<std::optional<std::string>(const std::string& name)>;

// `arguments` without the program's name. INVALID_ARGUMENT with one sentence naming the flag, the
// variable or the file's key, what it held and what was expected.
absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments,
                                             const EnvironmentFn& environment);

// 127.0.0.0/8, ::1 and localhost.
bool IsLoopback(const std::string& host_and_port);

}  // namespace gatehouse
