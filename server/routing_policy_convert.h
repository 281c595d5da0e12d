// The public schema of a routing policy (v1::RoutingPolicy) to what the engine is given: the one
// place where files, Admin calls and defaults meet. Pure, but for the calibration files it names.
#pragma once

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "gatehouse/v1/admin.pb.h"
#include "server/bounded_message.h"
#include "server/routing_table.h"
#include "server/server_config.h"

namespace gatehouse {

RoutingFacts FactsOf(const ModelDescription& model, const EngineConfig& config);

// The file of --routing-config, without a look at the model; empty where there is none.
// INVALID_ARGUMENT names the file and an unknown field or the line.
absl::StatusOr<v1::RoutingPolicy> LoadRoutingPolicy(const ServerConfig& config);

// Fills what is not set with the defaults of `facts`, then converts. INVALID_ARGUMENT "<field
// path>: got <value>, expected <what>"; FAILED_PRECONDITION for a calibration of another model, or
// shared mode without one.
absl::StatusOr<RoutingTable> ToRoutingTable(const RoutingFacts& facts, v1::RoutingPolicy& policy);

}  // namespace gatehouse
