// The C++ client of a Gatehouse server: typed calls over one channel.
//
// GatehouseClient is made once for a target and shared by any number of threads; it must outlive
// its streams and calls. Connecting is lazy: Connect checks only the options, and the first call
// (or WaitUntilConnected) opens the connection.
//
// Every failure is an absl::Status with the server's code and text. The details that a server adds
// (fields at fault, when to try again) travel in it: client/rpc_error.h reads them. Calls that fail
// for a passing reason are made again as ClientOptions.retry says; health checks never are.
//
//   auto client = gatehouse::GatehouseClient::Connect({.target = "127.0.0.1:50051"});
//   gatehouse::v1::GenerateRequest request;
//   request.set_text("It is a truth universally acknowledged");
//   absl::Status status = (*client)->Generate(request, {}, [](const auto& event) {
//     std::cout << event.delta().text() << std::flush;
//     return true;
//   });
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/client_options.h"
#include "gatehouse/v1/inference.pb.h"

namespace gatehouse {

enum class HealthState { kUnknown, kServing, kNotServing, kServiceUnknown };
const char* HealthStateName(HealthState state);  // as grpc.health.v1 spells it

// A running Generate call, read event by event by one thread. Destroying it cancels what still
// runs.
class GenerateStream {
 public:
  virtual ~GenerateStream() = default;
  // Waits for the next event; false at the end, after which Finish says how it ended. `started`
  // comes once: of the first try that got so far.
  virtual bool Next(v1::GenerateResponse& event) = 0;
  // Call once, after Next returned false (or after Cancel).
  virtual absl::Status Finish() = 0;
  virtual void Cancel() = 0;  // any thread; Next then returns false soon
};

// Receives a call's events on threads of gRPC, one at a time and in order; must not block.
class GenerateHandler {
 public:
  virtual ~GenerateHandler() = default;
  virtual void OnEvent(const v1::GenerateResponse& event) = 0;
  virtual void OnDone(const absl::Status& status) = 0;  // exactly once, last
};

// A call started by StartGenerate. It lives until OnDone whether or not anybody holds it.
class GenerateCall {
 public:
  virtual ~GenerateCall() = default;
  virtual void Cancel() = 0;  // any thread
};

class GatehouseClient {
 public:
  // INVALID_ARGUMENT: options that contradict each other, or a token that would travel to another
  // machine unencrypted.
  static absl::StatusOr<std::unique_ptr<GatehouseClient>> Connect(const ClientOptions& options);
  virtual ~GatehouseClient() = default;

  // UNAVAILABLE when no connection stands after `timeout`, or at once when the first try fails.
  virtual absl::Status WaitUntilConnected(std::chrono::milliseconds timeout) = 0;
  // True unless a try to connect has failed and none has worked since.
  virtual bool reachable() = 0;

  virtual std::unique_ptr<GenerateStream> Generate(const v1::GenerateRequest& request,
                                                   const CallOptions& options) = 0;
  // Calls `on_event` for each event in the calling thread; false from it cancels (CANCELLED).
  absl::Status Generate(const v1::GenerateRequest& request, const CallOptions& options,
                        const std::function<bool(const v1::GenerateResponse&)>& on_event);
  // For many streams on few threads.
  virtual std::shared_ptr<GenerateCall> StartGenerate(const v1::GenerateRequest& request,
                                                      const CallOptions& options,
                                                      std::shared_ptr<GenerateHandler> handler) = 0;

  virtual absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request,
                                                        const CallOptions& options) = 0;
  virtual absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request,
                                                            const CallOptions& options) = 0;
  virtual absl::StatusOr<v1::ModelInfo> GetModelInfo(const v1::GetModelInfoRequest& request,
                                                     const CallOptions& options) = 0;
  virtual absl::StatusOr<v1::ServerInfo> GetServerInfo(const CallOptions& options) = 0;

  // `service` is "" for the server as a whole or "gatehouse.v1.Inference".
  virtual absl::StatusOr<HealthState> CheckHealth(const std::string& service,
                                                  const CallOptions& options) = 0;
  // Calls `on_state` with the present state and each change; ends OK when it returns false.
  virtual absl::Status WatchHealth(const std::string& service, const CallOptions& options,
                                   const std::function<bool(HealthState)>& on_state) = 0;
};

}  // namespace gatehouse
