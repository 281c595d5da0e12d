// The listeners around one engine: gRPC with health and reflection, and HTTP for operators.
//
// Owner: main, or a test with an engine of its own. Engine, metrics, logger and clock outlive it.
// Start, Drain and the destructor belong to one thread; the addresses may be read by any.
//
//   auto server = GatehouseServer::Start(config, facts, {engine, metrics, logger, clock});
//   (*server)->Drain();   // what runs may finish, then everything is closed
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "server/convert.h"
#include "server/prometheus_metrics.h"
#include "server/server_config.h"

namespace gatehouse {

struct ServerParts {
  Engine& engine;
  PrometheusMetrics& metrics;  // SetModel has been called
  const Logger& logger;
  const Clock& clock;
};

class GatehouseServer {
 public:
  // UNAVAILABLE when an address cannot be bound, FAILED_PRECONDITION when a file of TLS cannot be
  // read or used. On success the server serves, and the ready file is written.
  static absl::StatusOr<std::unique_ptr<GatehouseServer>> Start(const ServerConfig& config,
                                                                const ServerFacts& facts,
                                                                const ServerParts& parts);
  virtual ~GatehouseServer() = default;  // cuts what is left

  // Health says NOT_SERVING and new requests are refused at once; running ones have
  // config.drain_seconds to end and to be read; then the listeners close. False when some had to be
  // ended or their readers were cut off.
  virtual bool Drain() = 0;

  virtual const std::string& listen_address() const = 0;   // host:port as bound
  virtual const std::string& metrics_address() const = 0;  // empty: none
};

}  // namespace gatehouse
