// What every client of a server is given: where it is, how to be trusted, when to try again.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace gatehouse {

// Which calls are made again when they fail. Tried again: UNAVAILABLE, and RESOURCE_EXHAUSTED when
// the server says how long to wait (google.rpc.RetryInfo); and of Generate only what has not
// delivered a token yet. The deadline counts for all tries: a wait that would pass it is not begun,
// and the caller gets the server's error at once.
struct RetryPolicy {
  int max_tries = 4;  // 1: never again
  // Without RetryInfo the waits double from one to the other, less a random part of up to half.
  // With it the wait is what the server asks for and a random part of such a wait, so that clients
  // who were refused together do not come back together.
  std::chrono::milliseconds first_wait{100};
  std::chrono::milliseconds max_wait{10'000};
  // A server that asks for more than this is not waited for: its error goes to the caller.
  std::chrono::milliseconds max_server_wait{60'000};
};

struct ClientOptions {
  std::string target = "127.0.0.1:50051";  // host:port, unix:/path, or as gRPC has it
  bool use_tls = false;
  std::string tls_ca_pem = "";       // empty: the system's roots
  std::string tls_cert_pem = "";     // for mutual TLS: certificate and key, both or none
  std::string tls_key_pem = "";      //
  std::string tls_server_name = "";  // the name that the certificate must have; empty: the target's
  // Sent as a bearer token; empty: none. Connect refuses to send one unencrypted to another
  // machine.
  std::string auth_token = "";
  // Clients of one target share one connection, unless their numbers differ.
  int connection_idx = 0;
  RetryPolicy retry = {};
};

struct CallOptions {
  std::chrono::milliseconds timeout{0};  // becomes the deadline; 0: none
  std::vector<std::pair<std::string, std::string>> metadata =
      {};  // such as traceparent; lower-case keys
  // Told before each wait: why, and for how long. Called where the call is read: by the thread in
  // Next or in the call itself, or by a thread of gRPC for StartGenerate. Must not block.
  std::function<void(const absl::Status&, std::chrono::milliseconds)> on_retry = nullptr;
};

}  // namespace gatehouse
