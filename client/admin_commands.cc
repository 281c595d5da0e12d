#include "client/admin_commands.h"

#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "client/admin_output.h"
#include "client/cli_commands.h"
#include "client/json_output.h"
#include "client/terminal.h"
#include "client/terminal_screen.h"
#include "proto/message_yaml.h"

namespace gatehouse {
namespace {

constexpr double kRebalanceIntervalSeconds = 0.1;  // the shortest that a server takes

// Writes an answer as JSON or as `describe` puts it for people.
template <typename Response, typename Describe>
int PrintAnswer(AdminClient& client, const CliOptions& options,
                const absl::StatusOr<Response>& answer, const Describe& describe) {
  if (!answer.ok()) return PrintAdminError(client, options, answer.status());
  const absl::Status written =
      WriteAll(STDOUT_FILENO, options.json ? ToJsonLine(*answer) : describe(*answer));
  return written.ok() ? kExitDone : PrintLostOutput(written);
}

int RunWatch(AdminClient& client, const CliOptions& options, const CallOptions& call) {
  v1::WatchStatusRequest request;
  request.set_interval_seconds(options.admin.interval_seconds);
  int64_t num_updates = 0;
  absl::Status written;
  const absl::Status status =
      client.WatchStatus(request, call, [&](const v1::ServerStatus& server_status) {
        written = WriteAll(STDOUT_FILENO, options.json ? ToJsonLine(server_status)
                                                       : DescribeStatusLine(server_status) + "\n");
        return written.ok() && ++num_updates != options.admin.max_updates;
      });
  if (!written.ok()) return PrintLostOutput(written);
  if (!status.ok()) return PrintAdminError(client, options, status);
  return kExitDone;
}

// Shows each change until there is none to come.
int RunRebalance(AdminClient& client, const CliOptions& options, const CallOptions& call) {
  const auto started = client.Rebalance(options.admin.rebalance, call);
  if (!started.ok()) return PrintAdminError(client, options, started.status());
  v1::WatchRebalanceRequest request;
  request.set_interval_seconds(kRebalanceIntervalSeconds);
  std::string shown;
  absl::Status written;
  const absl::Status status =
      client.WatchRebalance(request, {}, [&](const v1::RebalanceStatus& now) {
        const std::string line = options.json ? ToJsonLine(now) : DescribeRebalance(now);
        if (line != shown) written = WriteAll(STDOUT_FILENO, line);
        shown = line;
        const bool moves = now.state() == v1::RebalanceStatus::PLANNED ||
                           now.state() == v1::RebalanceStatus::MOVING;
        return written.ok() && moves && now.id() == started->id();
      });
  if (!written.ok()) return PrintLostOutput(written);
  if (!status.ok()) return PrintAdminError(client, options, status);
  return kExitDone;
}

int RunSetRouting(AdminClient& client, const CliOptions& options, const CallOptions& call) {
  const std::string& file = options.admin.routing_file;
  std::ifstream stream;
  if (file != "-") stream.open(file);
  std::istream& input = file == "-" ? std::cin : stream;
  const std::string yaml(std::istreambuf_iterator<char>(input), {});
  absl::Status read = absl::OkStatus();
  v1::SetRoutingPolicyRequest request = options.admin.set_routing;
  if (!input) {
    read = absl::NotFoundError("cannot be read");
  } else {
    read = MessageFromYaml(yaml, *request.mutable_policy());
  }
  if (!read.ok()) {
    const std::string text = absl::StrFormat("%s: %s", file, std::string(read.message()));
    PrintError(read, text, options.json);
    return kExitFailed;
  }
  return PrintAnswer(client, options, client.SetRoutingPolicy(request, call), MessageToYaml);
}

}  // namespace

int PrintAdminError(AdminClient& client, const CliOptions& options, const absl::Status& status) {
  PrintError(
      status,
      DescribeCallError(status, options.connection.target, client.reachable(), Listener::kAdmin),
      options.json);
  return kExitFailed;
}

Glyphs TerminalGlyphs() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* const value = std::getenv(name);
    if (value == nullptr || value[0] == '\0') continue;  // the next one decides
    const std::string locale = absl::AsciiStrToLower(value);
    const bool is_utf8 = absl::StrContains(locale, "utf-8") || absl::StrContains(locale, "utf8");
    return is_utf8 ? Glyphs::kUnicode : Glyphs::kAscii;
  }
  return Glyphs::kAscii;
}

int RunAdmin(AdminClient& client, const CliOptions& options) {
  const AdminOptions& admin = options.admin;
  const CallOptions call{.timeout = options.timeout()};
  switch (options.command) {
    case CliCommand::kAdminStatus:
      return PrintAnswer(client, options, client.GetStatus(call), DescribeStatus);
    case CliCommand::kAdminWatch:
      return RunWatch(client, options, call);
    case CliCommand::kAdminExperts:
      return PrintAnswer(client, options, client.GetExpertLoad(admin.experts, call),
                         [](const v1::ExpertLoad& load) {
                           return DescribeExpertLoad(load, TerminalScreen::Size().num_columns,
                                                     TerminalGlyphs());
                         });
    case CliCommand::kAdminPlacement:
      return PrintAnswer(client, options, client.GetPlacement(admin.placement, call),
                         DescribePlacement);
    case CliCommand::kAdminRebalance:
      return RunRebalance(client, options, call);
    case CliCommand::kAdminRequests:
      return PrintAnswer(client, options, client.GetRequests(admin.requests, call),
                         DescribeRequests);
    case CliCommand::kAdminCancel:
      return PrintAnswer(client, options, client.CancelRequest(admin.cancel, call),
                         [](const v1::CancelRequestResponse& response) {
                           return absl::StrFormat("cancelled %d\n", response.cancelled());
                         });
    case CliCommand::kAdminDrain:
      return PrintAnswer(client, options, client.Drain(admin.drain, call),
                         [](const v1::DrainResponse& response) {
                           return absl::StrFormat("draining; %d requests may still finish\n",
                                                  response.open_requests());
                         });
    case CliCommand::kAdminLogLevel:
      return PrintAnswer(client, options, client.SetLogLevel(admin.log_level, call),
                         [](const v1::SetLogLevelResponse& response) {
                           return absl::StrFormat(
                               "was %s\n", v1::SetLogLevelRequest::Level_Name(response.previous()));
                         });
    case CliCommand::kAdminFault:
      return PrintAnswer(client, options, client.InjectFault(admin.fault, call),
                         [](const v1::InjectFaultResponse&) { return std::string("injected\n"); });
    case CliCommand::kAdminRouting:
      return PrintAnswer(client, options, client.GetRoutingPolicy(call), MessageToYaml);
    case CliCommand::kAdminSetRouting:
      return RunSetRouting(client, options, call);
    default:
      return kExitBadUsage;
  }
}

}  // namespace gatehouse
