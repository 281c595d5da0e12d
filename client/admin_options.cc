#include "client/admin_options.h"

#include <CLI/CLI.hpp>
#include <map>

#include "client/cli_options.h"

namespace gatehouse {
namespace {

CLI::App& AddCommand(CLI::App& parent, CliOptions& options, CliCommand command, const char* name,
                     const char* help) {
  CLI::App* added = parent.add_subcommand(name, help);
  added->fallthrough();
  added->parse_complete_callback([&options, command] { options.command = command; });
  return *added;
}

void AddUpdateFlags(CLI::App& command, AdminOptions& admin) {
  command.add_option("--interval", admin.interval_seconds, "Seconds between updates")
      ->check(CLI::Range(0.2, 3600.0))
      ->capture_default_str();
  command
      .add_option("--count", admin.max_updates, "End after so many updates; 0: go on until Ctrl-C")
      ->check(CLI::Range(0, 1'000'000'000))
      ->capture_default_str();
}

template <typename Request>
void AddLayerFlag(CLI::App& command, Request& request) {
  command
      .add_option_function<std::vector<int32_t>>(
          "--layer",
          [&request](const std::vector<int32_t>& layers) {
            request.mutable_layers()->Add(layers.begin(), layers.end());
          },
          "Of this layer only, numbered as in the model; may be repeated")
      ->allow_extra_args(false);
}

void AddTenantFlag(CLI::App& command, std::string& tenant, const char* help) {
  command.add_option("--tenant", tenant, help);
}

void AddRequestCommands(CLI::App& parent, CliOptions& options) {
  AdminOptions& admin = options.admin;
  CLI::App& requests = AddCommand(parent, options, CliCommand::kAdminRequests, "requests",
                                  "What waits and runs now, the oldest first");
  AddTenantFlag(requests, *admin.requests.mutable_tenant(), "Of this tenant only");
  requests
      .add_option_function<int32_t>(
          "--max", [&admin](int32_t max) { admin.requests.set_max_requests(max); },
          "Show so many (default 1000)")
      ->check(CLI::Range(1, 10'000));

  CLI::App& cancel = AddCommand(parent, options, CliCommand::kAdminCancel, "cancel",
                                "End the requests that have an id");
  cancel.add_option("id", *admin.cancel.mutable_request_id(), "As `admin requests` shows it")
      ->required();
  AddTenantFlag(cancel, *admin.cancel.mutable_tenant(), "Only if it is of this tenant");
}

void AddPlacementCommands(CLI::App& parent, CliOptions& options) {
  AdminOptions& admin = options.admin;
  CLI::App& placement = AddCommand(parent, options, CliCommand::kAdminPlacement, "placement",
                                   "Which ranks hold which experts");
  AddLayerFlag(placement, admin.placement);
  CLI::App& rebalance =
      AddCommand(parent, options, CliCommand::kAdminRebalance, "rebalance",
                 "Move experts so that ranks have even work; follows it to its end");
  rebalance
      .add_option_function<int32_t>(
          "--replicas", [&admin](int32_t replicas) { admin.rebalance.set_replicas(replicas); },
          "Copies beyond the first, in each layer (default 0)")
      ->check(CLI::Range(0, 1'000'000));
  rebalance.add_flag_callback(
      "--force", [&admin] { admin.rebalance.set_force(true); },
      "However little it gains; still not on too few tokens");
}

void AddServerCommands(CLI::App& parent, CliOptions& options) {
  AdminOptions& admin = options.admin;
  CLI::App& drain = AddCommand(parent, options, CliCommand::kAdminDrain, "drain",
                               "Refuse new requests, let running ones finish, then end the server");
  drain
      .add_option_function<double>(
          "--seconds", [&admin](double seconds) { admin.drain.set_seconds(seconds); },
          "How long running requests may take (default: the server's --drain-seconds)")
      ->check(CLI::Range(0.0, 86'400.0));

  const std::map<std::string, v1::SetLogLevelRequest::Level> levels{
      {"debug", v1::SetLogLevelRequest::DEBUG},
      {"info", v1::SetLogLevelRequest::INFO},
      {"warning", v1::SetLogLevelRequest::WARNING},
      {"error", v1::SetLogLevelRequest::ERROR}};
  CLI::App& log_level = AddCommand(parent, options, CliCommand::kAdminLogLevel, "log-level",
                                   "Set what the server logs from now on");
  log_level
      .add_option_function<std::string>(
          "level",
          [&admin, levels](const std::string& name) { admin.log_level.set_level(levels.at(name)); },
          "This and above are logged")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->required();
}

void AddFaultCommand(CLI::App& parent, CliOptions& options) {
  AdminOptions& admin = options.admin;
  const std::map<std::string, v1::InjectFaultRequest::Fault> faults{
      {"slow-rank", v1::InjectFaultRequest::SLOW_RANK},
      {"dead-rank", v1::InjectFaultRequest::DEAD_RANK},
      {"lost-message", v1::InjectFaultRequest::LOST_MESSAGE},
      {"full-cache", v1::InjectFaultRequest::FULL_CACHE}};
  CLI::App& fault =
      AddCommand(parent, options, CliCommand::kAdminFault, "fault",
                 "Break a rank on purpose (gatehouse-server --allow-fault-injection)");
  fault
      .add_option_function<std::string>(
          "fault",
          [&admin, faults](const std::string& name) { admin.fault.set_fault(faults.at(name)); },
          "What happens to it")
      ->check(CLI::IsMember({"slow-rank", "dead-rank", "lost-message", "full-cache"}))
      ->required();
  fault
      .add_option_function<int32_t>(
          "--rank", [&admin](int32_t rank) { admin.fault.set_rank(rank); }, "Which (default 0)")
      ->check(CLI::Range(0, 1'000'000));
  fault
      .add_option_function<double>(
          "--seconds", [&admin](double seconds) { admin.fault.set_duration_seconds(seconds); },
          "slow-rank, dead-rank: for how long (default 5)")
      ->check(CLI::Range(0.0, 3600.0));
  fault
      .add_option_function<double>(
          "--delay", [&admin](double seconds) { admin.fault.set_delay_seconds(seconds); },
          "slow-rank: seconds more for each step (default 0.1)")
      ->check(CLI::Range(0.0, 60.0));
}

void AddRoutingCommands(CLI::App& parent, CliOptions& options) {
  AdminOptions& admin = options.admin;
  CLI::App* const routing =
      parent.add_subcommand("routing", "The routing policy in force, as the YAML that `set` takes");
  routing->fallthrough();
  CLI::App& set = AddCommand(*routing, options, CliCommand::kAdminSetRouting, "set",
                             "Another policy, for requests admitted from now on");
  set.add_option("file", admin.routing_file, "YAML; '-': standard input")
      ->required()
      ->type_name("FILE");
  set.add_option_function<int64_t>(
         "--expected-version",
         [&admin](int64_t version) { admin.set_routing.set_expected_version(version); },
         "Only if this version is in force")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 62));
  routing->parse_complete_callback([&options, &set] {
    if (!set.parsed()) options.command = CliCommand::kAdminRouting;
  });
}

}  // namespace

void AddAdmin(CLI::App& app, CliOptions& options) {
  CLI::App& parent =
      *app.add_subcommand("admin", "For operators: see and steer a server over its admin listener");
  parent.fallthrough();
  parent.require_subcommand(1);
  AddCommand(parent, options, CliCommand::kAdminStatus, "status", "How the server is doing");
  CLI::App& watch = AddCommand(parent, options, CliCommand::kAdminWatch, "watch",
                               "The same on one line, again and again");
  AddUpdateFlags(watch, options.admin);
  CLI::App& experts = AddCommand(parent, options, CliCommand::kAdminExperts, "experts",
                                 "How the tokens were spread over the experts since the start");
  AddLayerFlag(experts, options.admin.experts);
  AddPlacementCommands(parent, options);
  AddRequestCommands(parent, options);
  AddServerCommands(parent, options);
  AddFaultCommand(parent, options);
  AddRoutingCommands(parent, options);

  CLI::App& top = AddCommand(app, options, CliCommand::kTop, "top",
                             "Live view of requests, rates, memory and the load of the experts");
  AddUpdateFlags(top, options.admin);
  AddLayerFlag(top, options.admin.experts);
}

}  // namespace gatehouse
