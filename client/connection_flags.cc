#include "client/connection_flags.h"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
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

absl::Status ReadPemOf(const char* flag, const std::string& path, std::string& pem) {
  absl::Status status = ReadFileOf(flag, path, pem);
  // gRPC's own complaint about it names no file and comes as a failed connection.
  if (status.ok() && !path.empty() && !absl::StrContains(pem, "-----BEGIN ")) {
    return absl::InvalidArgumentError(absl::StrFormat("%s: %s is not a PEM file", flag, path));
  }
  return status;
}

absl::Status ReadToken(const std::string& path, std::string& token) {
  std::string source = "--token-file";
  if (!path.empty()) {
    absl::Status status = ReadFileOf("--token-file", path, token);
    if (!status.ok()) return status;
  } else if (const char* value = std::getenv("GATEHOUSE_TOKEN"); value != nullptr) {
    source = "GATEHOUSE_TOKEN";
    token = value;
  }
  token = std::string(absl::StripAsciiWhitespace(token));
  if (!path.empty() && token.empty()) {
    return absl::InvalidArgumentError(absl::StrFormat("--token-file: %s is empty", path));
  }
  // A line break or control character in a header would end the call with an obscure error.
  for (const char c : token) {
    if (c <= ' ' || c > '~') {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s: the token has characters outside printable ASCII", source));
    }
  }
  return absl::OkStatus();
}

std::vector<std::string> CommandNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
  }
  return names;
}

// Whether `app` has commands and none of them was named.
bool LacksCommand(const CLI::App& app) {
  return app.get_subcommands().empty() && !CommandNames(app).empty();
}

// The long names of the options, and the names of the commands, that `app` and its parents know.
std::vector<std::string> KnownWords(const CLI::App* app) {
  std::vector<std::string> words;
  for (const CLI::App* level = app; level != nullptr; level = level->get_parent()) {
    for (const CLI::Option* option : level->get_options()) {
      for (const std::string& name : option->get_lnames()) words.push_back("--" + name);
    }
  }
  for (const std::string& name : CommandNames(*app)) words.push_back(name);
  return words;
}

std::string DescribeParseError(const CLI::App& app, const std::string& what) {
  const CLI::App* command = &app;
  std::string help = app.get_name();
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    help += " " + command->get_name();
  }
  std::string unknown;
  for (const std::string& word : app.remaining(true)) {
    if (unknown.empty() || (unknown[0] != '-' && word[0] == '-')) unknown = word;
  }
  std::string text = what;
  if (unknown.empty() && LacksCommand(*command)) {
    text = "which command? One of: " + absl::StrJoin(CommandNames(*command), ", ");
  }
  if (!unknown.empty()) {
    const std::string name = unknown.substr(0, unknown.find('='));
    const bool is_flag = name[0] == '-';
    const bool wants_command = !is_flag && LacksCommand(*command);
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

void AddConnectionFlags(CLI::App& app, ConnectionFlags& flags, const std::string& target_help) {
  const char* const group = "Connection";
  app.add_option("--target", flags.target, target_help)->type_name("HOST:PORT")->group(group);
  app.add_flag("--tls", flags.tls, "Encrypt; the certificate must be signed by a known authority")
      ->group(group);
  app.add_option("--tls-ca", flags.tls_ca_file, "Authorities to trust instead (PEM); implies --tls")
      ->type_name("FILE")
      ->group(group);
  app.add_option("--tls-cert", flags.tls_cert_file, "Our certificate (PEM), for mutual TLS")
      ->type_name("FILE")
      ->group(group);
  app.add_option("--tls-key", flags.tls_key_file, "Its key (PEM)")->type_name("FILE")->group(group);
  app.add_option("--tls-server-name", flags.tls_server_name,
                 "The name that the server's certificate has, if it is not the target's")
      ->type_name("NAME")
      ->group(group);
  app.add_option("--token-file", flags.token_file,
                 "File with the bearer token; without it GATEHOUSE_TOKEN is used, if set")
      ->type_name("FILE")
      ->group(group);
}

void SetDefaultTarget(Listener listener, ConnectionFlags& flags) {
  if (!flags.target.empty()) return;
  const bool is_admin = listener == Listener::kAdmin;
  const char* const value = std::getenv(is_admin ? "GATEHOUSE_ADMIN_TARGET" : "GATEHOUSE_TARGET");
  flags.target = is_admin ? "127.0.0.1:50052" : "127.0.0.1:50051";
  if (value != nullptr && value[0] != '\0') flags.target = value;
}

absl::StatusOr<ClientOptions> ToClientOptions(const ConnectionFlags& flags) {
  ClientOptions options{.target = flags.target, .tls_server_name = flags.tls_server_name};
  options.retry.max_tries = 1 + flags.num_retries;
  options.use_tls = flags.tls || !flags.tls_ca_file.empty() || !flags.tls_cert_file.empty() ||
                    !flags.tls_key_file.empty() || !flags.tls_server_name.empty();
  absl::Status status = ReadPemOf("--tls-ca", flags.tls_ca_file, options.tls_ca_pem);
  status.Update(ReadPemOf("--tls-cert", flags.tls_cert_file, options.tls_cert_pem));
  status.Update(ReadPemOf("--tls-key", flags.tls_key_file, options.tls_key_pem));
  status.Update(ReadToken(flags.token_file, options.auth_token));
  if (!status.ok()) return status;
  return options;
}

std::string DescribeCallError(const absl::Status& status, const std::string& target, bool reachable,
                              Listener listener) {
  const bool is_admin = listener == Listener::kAdmin;
  const std::string said(status.message());
  if (absl::IsUnavailable(status) && !reachable &&
      absl::StrContains(absl::AsciiStrToLower(said), "handshake")) {
    return absl::StrFormat(
        "%s answers, but TLS with it failed\n"
        "  Is its certificate of an authority in --tls-ca, and for this name (--tls-server-name)?\n"
        "  Does it speak TLS at all, or want a certificate of ours (--tls-cert, --tls-key)?\n"
        "  (%s)",
        target, said);
  }
  if (absl::IsUnimplemented(status)) {
    return absl::StrFormat(
        "%s\n  %s does not serve this. It may be the other listener of a server (--listen is for\n"
        "  requests, default port 50051; --admin-listen for admin and top, default port 50052),\n"
        "  or another version.",
        DescribeError(status), target);
  }
  if (!absl::IsUnavailable(status)) return DescribeError(status);
  // The server's own word, or the connection's end, which names nothing.
  if (reachable) return absl::StrFormat("%s\n  (server: %s)", DescribeError(status), target);
  // What an HTTP/1 server and one that expects TLS make of our first bytes.
  if (absl::StrContains(said, "HTTP/2") || absl::StrContains(said, "http1") ||
      absl::StrContains(said, "Socket closed")) {
    return absl::StrFormat(
        "what answers at %s does not speak gRPC without TLS\n"
        "  Is this the port of metrics, or is --tls (--tls-ca) missing?\n"
        "  (%s)",
        target, said);
  }
  return absl::StrFormat(
      "cannot reach a server at %s\n"
      "  Start one with: gatehouse-server --model DIR\n"
      "  or name another with --target HOST:PORT or %s.\n"
      "  (%s)",
      target, is_admin ? "GATEHOUSE_ADMIN_TARGET" : "GATEHOUSE_TARGET", said);
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
