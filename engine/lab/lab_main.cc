// gatehouse-lab: the workbench beside the server. `route` runs route case files through the router
// that serves. Exit codes: 0 done, 1 a case differs or a file cannot be read, 2 bad usage.
#include <cstdio>
#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/lab/lab_command.h"
#include "engine/lab/route_case.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

constexpr char kUsage[] =
    "usage: gatehouse-lab COMMAND ...\n"
    "\n"
    "route    [--json] [--quiet] FILE...\n"
    "         decides every case of the route files and compares it with what the case expects\n"
    "         (the format and the rules: docs/routing.md). Prints each decision; exit code 1 if "
    "one\n"
    "         differs or a file has an error.\n"
    "  --quiet  print only what differs, and the count\n"
    "  --json   print one JSON object a case\n";

struct RouteCommand {
  bool json = false;
  bool quiet = false;
  std::vector<std::string> files;
};

struct CaseResult {
  bool passed = false;
  std::vector<std::string> problems;
  std::vector<RouteExpectation> outcome;  // empty: the case is invalid
};

absl::StatusOr<CaseResult> RunCase(const RouteCase& route_case) {
  const absl::StatusOr<RouteOutcome> outcome = DecideRouteCase(route_case);
  if (absl::IsOutOfRange(outcome.status())) return outcome.status();
  CaseResult result;
  if (!outcome.ok()) {
    result.passed = route_case.expects_invalid;
    result.problems = {std::string(outcome.status().message())};
    return result;
  }
  GATEHOUSE_ASSIGN_OR_RETURN(result.problems, CompareWithExpectations(route_case, *outcome));
  if (route_case.expects_invalid) result.problems.push_back("expected invalid settings");
  result.passed = result.problems.empty();
  result.outcome = DescribeOutcome(*outcome);
  return result;
}

void PrintJson(const std::string& file, const RouteCase& route_case, const CaseResult& result) {
  nlohmann::ordered_json outcome = nlohmann::ordered_json::object();
  for (const RouteExpectation& label : result.outcome) outcome[label.label] = label.items;
  const nlohmann::ordered_json line = {{"file", file},
                                       {"case", route_case.name},
                                       {"line", route_case.line},
                                       {"passed", result.passed},
                                       {"problems", result.problems},
                                       {"outcome", outcome}};
  const auto replace = nlohmann::ordered_json::error_handler_t::replace;
  std::printf("%s\n", line.dump(-1, ' ', false, replace).c_str());
}

void PrintText(const std::string& file, const RouteCase& route_case, const CaseResult& result,
               bool quiet) {
  if (quiet && result.passed) return;
  std::printf("%s  %s (%s:%d)\n", result.passed ? "ok    " : "FAILED", route_case.name.c_str(),
              file.c_str(), route_case.line);
  for (const std::string& problem : result.problems) std::printf("  %s\n", problem.c_str());
  if (quiet) return;
  for (const RouteExpectation& label : result.outcome) {
    const std::string items = label.items.empty() ? "-" : absl::StrJoin(label.items, " ");
    std::printf("    %s: %s\n", label.label.c_str(), items.c_str());
  }
}

absl::StatusOr<std::string> ReadFile(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  if (!stream || !(text << stream.rdbuf())) {
    return absl::NotFoundError(file + ": cannot be read, expected a route file");
  }
  return text.str();
}

// The number of cases that failed.
absl::StatusOr<int> RunFile(const RouteCommand& command, const std::string& file, int& num_cases) {
  GATEHOUSE_ASSIGN_OR_RETURN(const std::string text, ReadFile(file));
  GATEHOUSE_ASSIGN_OR_RETURN(const std::vector<RouteCase> cases, ParseRouteFile(text, file));
  int num_failed = 0;
  for (const RouteCase& route_case : cases) {
    const absl::StatusOr<CaseResult> result = RunCase(route_case);
    if (!result.ok()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s: case %s: %s", file, route_case.name, result.status().message()));
    }
    ++num_cases;
    num_failed += result->passed ? 0 : 1;
    if (command.json) {
      PrintJson(file, route_case, *result);
    } else {
      PrintText(file, route_case, *result, command.quiet);
    }
  }
  return num_failed;
}

int RunRoute(const RouteCommand& command) {
  int num_cases = 0, num_failed = 0;
  bool broken = false;
  for (const std::string& file : command.files) {
    const absl::StatusOr<int> failed = RunFile(command, file, num_cases);
    if (failed.ok()) {
      num_failed += *failed;
    } else {
      std::fprintf(stderr, "gatehouse-lab: %s\n", std::string(failed.status().message()).c_str());
      broken = true;
    }
  }
  if (!command.json) std::printf("%d cases, %d failed\n", num_cases, num_failed);
  return broken || num_failed > 0 ? 1 : 0;
}

int UsageError(const std::string& what) {
  std::fprintf(stderr, "gatehouse-lab: %s\n%s", what.c_str(), kUsage);
  return 2;
}

int Main(const std::vector<std::string>& words) {
  if (words.empty()) return UsageError("expected a command");
  for (const std::string& word : words) {
    if (word == "--help" || word == "-h" || words[0] == "help") {
      std::printf("%s\n%s\n%s\n%s\n%s\n%s", kUsage, kEvalUsage, kCalibrateUsage, kSimulateUsage,
                  kWeightsUsage, kPackUsage);
      return 0;
    }
  }
  if (words[0] == "simulate") {
    return RunSimulateCommand({words.begin() + 1, words.end()});
  }
  if (words[0] == "calibrate") {
    return RunCalibrateCommand({words.begin() + 1, words.end()});
  }
  if (words[0] == "eval") return RunEvalCommand({words.begin() + 1, words.end()});
  if (words[0] == "weights") return RunWeightsCommand({words.begin() + 1, words.end()});
  if (words[0] == "pack") return RunPackCommand({words.begin() + 1, words.end()});
  if (words[0] != "route") return UsageError("there is no command '" + words[0] + "'");
  RouteCommand command;
  for (size_t i = 1; i < words.size(); ++i) {
    if (words[i] == "--json") {
      command.json = true;
    } else if (words[i] == "--quiet") {
      command.quiet = true;
    } else if (words[i].starts_with("--")) {
      return UsageError("there is no flag '" + words[i] + "'");
    } else {
      command.files.push_back(words[i]);
    }
  }
  if (command.files.empty()) return UsageError("route: expected route files");
  return RunRoute(command);
}

}  // namespace
}  // namespace gatehouse

int main(int argc, char** argv) {
  try {
    return gatehouse::Main({argv + 1, argv + argc});
  } catch (const std::exception& error) {  // of the JSON library and the C++ one
    std::fprintf(stderr, "gatehouse-lab: %s\n", error.what());
    return 1;
  }
}
