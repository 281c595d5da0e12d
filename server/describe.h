// What the server tells clients of its model, of itself and of every limit in force. Pure; any
// thread.
#pragma once

#include <string>

#include "engine/engine.h"
#include "gatehouse/v1/inference.pb.h"
#include "server/server_config.h"

namespace gatehouse {

v1::ModelInfo ToModelInfo(const ModelDescription& model);

// What the server knows of itself beside its configuration.
struct ServerFacts {
  std::string version;
  std::string build;
  std::string backend;
  std::string isa;
  int num_threads = 1;
  int num_ranks = 1;
};
v1::ServerInfo ToServerInfo(const ServerFacts& facts, const ServerConfig& config,
                            const Engine& engine);

}  // namespace gatehouse
