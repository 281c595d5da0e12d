#include "client/channel.h"

#include <arpa/inet.h>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "client/rpc_error.h"

namespace gatehouse {
namespace {

// Answers are small, but a prompt's tokens may not be: gRPC's default of 4 MiB is an hour of
// debugging for whoever meets it first.
constexpr int kMaxReceiveBytes = 64 << 20;

// gRPC waits a second after a failed try to connect, longer than our first waits, and two minutes
// in the end.
constexpr int kFirstReconnectMs = 100;
constexpr int kMaxReconnectMs = 5000;

// gRPC would take 443 for a missing port, and 99999 less a multiple of 65536.
absl::Status CheckTarget(const std::string& target) {
  if (target.empty()) return absl::InvalidArgumentError("the target is empty");
  for (const char* scheme : {"unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:"}) {
    if (absl::StartsWith(target, scheme)) return absl::OkStatus();
  }
  const size_t colon = target.rfind(':');
  int port = 0;
  const bool is_whole = colon != std::string::npos && colon > 0 &&
                        (target.find(':') == colon || target[colon - 1] == ']') &&
                        absl::SimpleAtoi(target.substr(colon + 1), &port) && port >= 1 &&
                        port <= 65535;
  if (is_whole) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("the target '%s' is not HOST:PORT with a port from 1 to 65535", target));
}

}  // namespace

bool IsLoopback(const std::string& target) {
  if (absl::StartsWith(target, "unix:") || absl::StartsWith(target, "unix-abstract:")) return true;
  if (target == "[::1]" || absl::StartsWith(target, "[::1]:")) return true;
  const std::string host = target.substr(0, target.find(':'));
  if (host == "localhost") return true;
  // Parsed and not compared: 127.example.org is a name that may lead anywhere.
  in_addr address{};
  return inet_pton(AF_INET, host.c_str(), &address) == 1 && ntohl(address.s_addr) >> 24 == 127;
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const ClientOptions& options) {
  const absl::Status target = CheckTarget(options.target);
  if (!target.ok()) return target;
  if (options.tls_cert_pem.empty() != options.tls_key_pem.empty()) {
    return absl::InvalidArgumentError(
        "mutual TLS needs a certificate and its key, not one of them");
  }
  const bool is_loopback = IsLoopback(options.target);
  if (!options.auth_token.empty() && !options.use_tls && !is_loopback) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "the token would travel to %s unencrypted, for everybody on the way to read: use TLS",
        options.target));
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxReceiveBytes);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kFirstReconnectMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kMaxReconnectMs);
  // Channels that differ in an argument share nothing.
  arguments.SetInt("gatehouse.connection_idx", options.connection_idx);
  // http_proxy is set for the internet, and no_proxy often forgotten.
  if (is_loopback) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (!options.tls_server_name.empty()) {
    arguments.SetSslTargetNameOverride(options.tls_server_name);
  }
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (options.use_tls) {
    credentials = grpc::SslCredentials({.pem_root_certs = options.tls_ca_pem,
                                        .pem_private_key = options.tls_key_pem,
                                        .pem_cert_chain = options.tls_cert_pem});
  }
  return grpc::CreateCustomChannel(options.target, credentials, arguments);
}

std::string AuthorizationOf(const ClientOptions& options) {
  return options.auth_token.empty() ? "" : "Bearer " + options.auth_token;
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const std::string& text = status.error_message();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()),
                      absl::string_view(text.data(), text.size()));
  if (!status.error_details().empty()) {
    result.SetPayload(kStatusDetailsUrl, absl::Cord(status.error_details()));
  }
  return result;
}

void AddMetadata(const std::string& authorization, const CallOptions& options,
                 grpc::ClientContext& context) {
  if (!authorization.empty()) context.AddMetadata("authorization", authorization);
  for (const auto& [key, value] : options.metadata) context.AddMetadata(key, value);
}

void SetDeadline(const CallOptions& options, grpc::ClientContext& context) {
  if (options.timeout.count() > 0) {
    context.set_deadline(std::chrono::system_clock::now() + options.timeout);
  }
}

}  // namespace gatehouse
