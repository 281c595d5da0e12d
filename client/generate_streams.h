// The two ways to read a Generate call, both with retries. Part of the library, not of its
// interface.
#pragma once

#include <memory>
#include <string>

#include "client/gatehouse_client.h"
#include "gatehouse/v1/inference.grpc.pb.h"

namespace gatehouse {

struct GenerateSetup {
  v1::Inference::Stub* stub = nullptr;  // outlives the call
  v1::GenerateRequest request;
  CallOptions options;
  std::string authorization;
  RetryPolicy retry;
};

// Both have started when they return.
std::unique_ptr<GenerateStream> MakeGenerateStream(GenerateSetup setup);
std::shared_ptr<GenerateCall> MakeGenerateCall(GenerateSetup setup,
                                               std::shared_ptr<GenerateHandler> handler);

}  // namespace gatehouse
