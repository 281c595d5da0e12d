// The public schema of a routing policy (v1::RoutingPolicy) to what the engine is given: the one
// place where files, Admin calls and defaults meet. Pure, but for the calibration files it names.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "gatehouse/v1/admin.pb.h"
#include "server/routing_table.h"
#include "server/server_config.h"

namespace gatehouse {

// What a policy is checked against.
struct RoutingFacts {
  const ModelDescription& model;
  int32_t block_tokens = 16;      // of the KV cache
  int32_t max_chunk_tokens = 16;  // prompt tokens that every step has room for
};

RoutingFacts FactsOf(const ModelDescription& model, const EngineConfig& config);

// The file of --routing-config, without a look at the model; empty where there is none.
// INVALID_ARGUMENT names the file and an unknown field or the line.
absl::StatusOr<v1::RoutingPolicy> LoadRoutingPolicy(const ServerConfig& config);

// Fills what is not set with the defaults of `facts`, then converts. INVALID_ARGUMENT "<field
// path>: got <value>, expected <what>"; FAILED_PRECONDITION for a calibration of another model, or
// shared mode without one.
absl::StatusOr<RoutingTable> ToRoutingTable(const RoutingFacts& facts, v1::RoutingPolicy& policy);

}  // namespace gatehouse
