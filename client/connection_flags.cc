#include "client/connection_flags.h"

#include <CLI/CLI.hpp>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "client/rpc_error.h"
#include "client/terminal.h"
#include "client/text.h"

namespace gatehouse {
namespace {

constexpr size_t kMaxCredentialBytes = 1 << 20;
constexpr int kExitUsage = 2;

absl::Status ReadFileOf(const char* flag, const std::string& path, std::string& content) {
  if (path.empty()) return absl::OkStatus();
  absl::StatusOr<std::string> read = ReadAll(path, kMaxCredentialBytes);
  if (!read.ok()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %s", flag, std::string(read.status().message())));
  }
  content = *std::move(read);
  return absl::OkStatus();
}

// The long names of the options, and the names of the commands, that `app` and its parents know.
std::vector<std::string> KnownWords(const CLI::App* app) {
  std::vector<std::string> words;
  for (const CLI::App* level = app; level != nullptr; level = level->get_parent()) {
    for (const CLI::Option* option : level->get_options()) {
      for (const std::string& name : option->get_lnames()) words.push_back("--" + name);
    }
  }
  for (const CLI::App* command : app->get_subcommands([](const CLI::App*) { return true; })) {
    words.push_back(command->get_name());
  }
  return words;
}

std::string DescribeParseError(const CLI::App& app, const std::string& what) {
  const std::vector<CLI::App*> chosen = app.get_subcommands();
  const CLI::App* command = chosen.empty() ? &app : chosen.front();
  const std::string help =
      command == &app ? app.get_name() : app.get_name() + " " + command->get_name();
  std::string unknown;
  for (const std::string& word : app.remaining(true)) {
    if (unknown.empty() || (unknown[0] != '-' && word[0] == '-')) unknown = word;
  }
  std::string text = what;
  if (!unknown.empty()) {
    const std::string name = unknown.substr(0, unknown.find('='));
    const bool is_flag = name[0] == '-';
    const bool wants_command = command == &app && !is_flag &&
                               !app.get_subcommands([](const CLI::App*) { return true; }).empty();
    text = is_flag ? absl::StrFormat("unknown flag %s", name)
           : wants_command
               ? absl::StrFormat("unknown command %s", name)
               : absl::StrFormat("unexpected argument '%s' (quote a text of many words)", name);
    const std::string nearest =
        is_flag || wants_command ? NearestWord(name, KnownWords(command)) : "";
    if (!nearest.empty()) text += absl::StrFormat(": did you mean %s?", nearest);
  }
  return absl::StrFormat("%s: %s\nTry '%s --help'.\n", app.get_name(), text, help);
}

}  // namespace

void AddConnectionFlags(CLI::App& app, ConnectionFlags& flags) {
  const char* const group = "Connection";
  app.add_option("--target", flags.target, "The server, host:port or unix:/path")
      ->envname("GATEHOUSE_TARGET")
      ->capture_default_str()
      ->group(group);
  app.add_flag("--tls", flags.tls, "Encrypt; the certificate must be signed by a known authority")
      ->group(group);
  app.add_option("--tls-ca", flags.tls_ca_file, "Authorities to trust instead (PEM); implies --tls")
      ->group(group);
  app.add_option("--tls-cert", flags.tls_cert_file, "Our certificate (PEM), for mutual TLS")
      ->group(group);
  app.add_option("--tls-key", flags.tls_key_file, "Its key (PEM)")->group(group);
  app.add_option("--tls-server-name", flags.tls_server_name,
                 "The name that the server's certificate has, if it is not the target's")
      ->group(group);
  app.add_option("--auth-token-file", flags.auth_token_file, "File with the bearer token")
      ->envname("GATEHOUSE_AUTH_TOKEN_FILE")
      ->group(group);
}

absl::StatusOr<ClientOptions> ToClientOptions(const ConnectionFlags& flags) {
  ClientOptions options{.target = flags.target, .tls_server_name = flags.tls_server_name};
  options.use_tls = flags.tls || !flags.tls_ca_file.empty() || !flags.tls_cert_file.empty() ||
                    !flags.tls_key_file.empty() || !flags.tls_server_name.empty();
  std::string token;
  absl::Status status = ReadFileOf("--tls-ca", flags.tls_ca_file, options.tls_ca_pem);
  status.Update(ReadFileOf("--tls-cert", flags.tls_cert_file, options.tls_cert_pem));
  status.Update(ReadFileOf("--tls-key", flags.tls_key_file, options.tls_key_pem));
  status.Update(ReadFileOf("--auth-token-file", flags.auth_token_file, token));
  if (!status.ok()) return status;
  options.auth_token = std::string(absl::StripAsciiWhitespace(token));
  // A line break or control character in a header would end the call with an obscure error.
  for (const char c : options.auth_token) {
    if (c <= ' ' || c > '~') {
      return absl::InvalidArgumentError(
          "--auth-token-file: the token has characters outside printable ASCII");
    }
  }
  if (!flags.auth_token_file.empty() && token.empty()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--auth-token-file: %s is empty", flags.auth_token_file));
  }
  return options;
}

std::string DescribeCallError(const absl::Status& status, const std::string& target,
                              bool reachable) {
  if (status.code() != absl::StatusCode::kUnavailable || reachable) return DescribeError(status);
  return absl::StrFormat(
      "cannot reach a server at %s\n"
      "  Start one with: gatehouse-server --model DIR\n"
      "  or name another with --target HOST:PORT or GATEHOUSE_TARGET.\n"
      "  (%s)",
      target, std::string(status.message()));
}

ParseOutcome ParseFlags(CLI::App& app, int argc, const char* const* argv) {
  try {
    app.parse(argc, argv);
    return {.run = true};
  } catch (const CLI::CallForHelp&) {
    return {.output = app.help()};  // of the command, if one was named
  } catch (const CLI::CallForVersion& version) {
    return {.output = std::string(version.what()) + "\n"};
  } catch (const CLI::ParseError& error) {
    return {.exit_code = kExitUsage, .output = DescribeParseError(app, error.what())};
  }
}

}  // namespace gatehouse
