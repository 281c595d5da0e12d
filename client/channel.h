// What the clients of the public and of the operators' service share: a channel, and calls on it.
// Part of the library, not of its interface: the interface does not show gRPC.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/client_options.h"

namespace gatehouse {

// True only for targets that cannot leave this machine.
bool IsLoopback(const std::string& target);

// Checks the options; INVALID_ARGUMENT says which is wrong. Opens no connection yet.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const ClientOptions& options);

// The header of a token; empty: none.
std::string AuthorizationOf(const ClientOptions& options);

// With the serialised details as payload (client/rpc_error.h).
absl::Status FromGrpc(const grpc::Status& status);

// All but the deadline.
void AddMetadata(const std::string& authorization, const CallOptions& options,
                 grpc::ClientContext& context);
void SetDeadline(const CallOptions& options, grpc::ClientContext& context);

// Calls `on_message` for what `reader` reads; ends OK when it returns false.
template <typename Message>
absl::Status ReadWhile(grpc::ClientContext& context, grpc::ClientReader<Message>& reader,
                       const std::function<bool(const Message&)>& on_message) {
  Message message;
  while (reader.Read(&message)) {
    if (on_message(message)) continue;
    context.TryCancel();
    while (reader.Read(&message)) {
    }
    reader.Finish();
    return absl::OkStatus();
  }
  return FromGrpc(reader.Finish());
}

}  // namespace gatehouse
