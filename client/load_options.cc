#include "client/load_options.h"

#include <CLI/CLI.hpp>
#include <map>
#include <string>

#include "client/text.h"

namespace gatehouse {
namespace {

constexpr double kMaxSeconds = 1e6;
constexpr int64_t kMaxRequests = 1'000'000'000;

void AddShapeFlags(CLI::App& app, LoadOptions& o) {
  const char* const group = "Shape of the load";
  auto* clients = app.add_option("--clients", o.num_clients,
                                 "Closed loop: so many, each sending when its last has ended")
                      ->check(CLI::Range(1, 100'000))
                      ->capture_default_str()
                      ->group(group);
  app.add_option("--rate", o.rate, "Open loop: requests per second, a Poisson process")
      ->check(CLI::Range(0.0, 1e6))
      ->excludes(clients)
      ->group(group);
  app.add_option("--max-in-flight", o.max_in_flight, "Open loop: more than these are not sent")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str()
      ->group(group);
  app.add_option("--requests", o.num_requests, "Stop after so many")
      ->check(CLI::Range(int64_t{1}, kMaxRequests))
      ->group(group);
  app.add_option("--duration", o.duration_seconds, "Start none after so many seconds")
      ->check(CLI::Range(0.0, kMaxSeconds))
      ->group(group);
  app.add_option("--grace", o.grace_seconds, "Cancel what runs so many seconds after the duration")
      ->check(CLI::Range(0.0, kMaxSeconds))
      ->capture_default_str()
      ->group(group);
  app.add_option("--warmup", o.num_warmup, "Requests before the measurement")
      ->check(CLI::Range(0, 1'000'000))
      ->group(group);
  app.add_option("--repeats", o.num_repeats, "Repeat, and report median and spread")
      ->check(CLI::Range(1, 1000))
      ->group(group);
  app.add_option("--connections", o.num_connections, "Spread over so many connections")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str()
      ->group(group);
}

void AddRequestFlags(CLI::App& app, LoadOptions& o) {
  const char* const group = "Requests";
  auto* tokens =
      app.add_option("--prompt-tokens", o.num_prompt_tokens, "Length of the random prompts")
          ->check(CLI::Range(1, 1 << 24))
          ->capture_default_str()
          ->group(group);
  app.add_option("--prompt-file", o.prompt_file, "Prompts from a file, one a line, in turn")
      ->excludes(tokens)
      ->group(group);
  app.add_option("--max-new-tokens", o.max_new_tokens, "Tokens to generate")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str()
      ->group(group);
  app.add_flag("--ignore-eos", o.ignore_eos, "Always generate that many")->group(group);
  app.add_option("--temperature", o.temperature, "Default: the model's")
      ->check(CLI::Range(0.0, 100.0))
      ->group(group);
  app.add_option("--mode", o.mode, "Routing: exact, isolated, shared; default: the tenant's")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, v1::Routing::Mode>{{"exact", v1::Routing::EXACT},
                                                   {"isolated", v1::Routing::ISOLATED},
                                                   {"shared", v1::Routing::SHARED}}))
      ->option_text("MODE")
      ->group(group);
  app.add_option("--timeout", o.timeout_seconds, "Deadline of each request in seconds; 0: none")
      ->check(CLI::Range(0.0, kMaxSeconds))
      ->group(group);
  app.add_option("--seed", o.seed, "Of arrivals, prompts and sampling")
      ->check(CheckNotNegative)
      ->capture_default_str()
      ->group(group);
}

void AddReportFlags(CLI::App& app, LoadOptions& o) {
  const char* const group = "Report";
  app.add_option("--token-rate", o.token_rate,
                 "The server paces each stream at so many tokens per second: report how late "
                 "tokens come")
      ->check(CLI::Range(0.0, 1e6))
      ->group(group);
  app.add_option("--server-pid", o.server_pid, "Report the CPU time of this process too")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31))
      ->group(group);
  app.add_option("-o,--output", o.output_file, "Append the JSON lines to a file")->group(group);
  app.add_option("--label", o.label, "Repeated in the result")->group(group);
  app.add_flag_callback(
         "--json", [] {}, "Accepted for uniformity: the report always is JSON lines")
      ->group(group);
}

}  // namespace

ParseOutcome ParseLoadOptions(int argc, const char* const* argv, LoadOptions& options) {
  CLI::App app("Load for a Gatehouse server: closed or open loop, JSON lines on standard output.",
               "gatehouse-loadgen");
  app.set_version_flag("--version", "gatehouse-loadgen " GATEHOUSE_VERSION);
  AddConnectionFlags(app, options.connection, kPublicTargetHelp);
  AddShapeFlags(app, options);
  AddRequestFlags(app, options);
  AddReportFlags(app, options);
  ParseOutcome outcome = ParseFlags(app, argc, argv);
  SetDefaultTarget(Listener::kPublic, options.connection);
  if (outcome.run && options.num_requests == 0 && options.duration_seconds == 0) {
    return {.exit_code = 2,
            .output = "gatehouse-loadgen: give --requests, --duration, or both: a run must end\n"};
  }
  return outcome;
}

}  // namespace gatehouse
