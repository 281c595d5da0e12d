// The listeners around one engine: gRPC for clients and for operators, each with health and
// reflection, and HTTP for probes and metrics. They open before the model is loaded, so that probes
// find somebody who says NOT_SERVING and a port that is taken is known at once.
//
// Owner: main, or a test with an engine of its own. Metrics, logger, clock and engine outlive it.
// Start, Serve, Drain and the destructor belong to one thread; the others may be called by any.
//
//   auto server = GatehouseServer::Start(config, facts, {metrics, logger, clock, ask_for_drain});
//   (*server)->Serve(engine);   // the model is loaded
//   (*server)->Drain();         // what runs may finish, then everything is closed
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "server/convert.h"
#include "server/describe.h"
#include "server/prometheus_metrics.h"
#include "server/server_config.h"

namespace gatehouse {

struct ServerParts {
  PrometheusMetrics& metrics;
  Logger& logger;
  const Clock& clock;
  // An operator asks for a drain: whoever owns the server should call Drain soon. Any thread.
  std::function<void()> on_drain_request;
};

class GatehouseServer {
 public:
  // UNAVAILABLE when an address cannot be bound; FAILED_PRECONDITION or INVALID_ARGUMENT when a
  // file of certificates, tokens or tenants cannot be used.
  static absl::StatusOr<std::unique_ptr<GatehouseServer>> Start(const ServerConfig& config,
                                                                const ServerFacts& facts,
                                                                const ServerParts& parts);
  virtual ~GatehouseServer() = default;  // cuts what is left

  // Requests are taken from now on, and the ready file is written; UNAVAILABLE when it cannot be.
  // INVALID_ARGUMENT or FAILED_PRECONDITION when the routing policy does not fit the model.
  // Once; metrics.SetModel has been called.
  virtual absl::Status Serve(Engine& engine) = 0;

  // Reads certificates, tokens and tenants again, soon and on the server's own thread.
  virtual void Reload() = 0;

  // Health says NOT_SERVING and new requests are refused at once; running ones have
  // config.drain_seconds, or what an operator said, to end and to be read; then the listeners
  // close. False when some had to be ended or their readers were cut off.
  virtual bool Drain() = 0;
  // A drain, the one that runs or the next, ends config.drain_seconds from now, or before if it
  // would have.
  virtual void HurryDrain() = 0;

  virtual const std::string& listen_address() const = 0;   // host:port as bound
  virtual const std::string& admin_address() const = 0;    // empty: none
  virtual const std::string& metrics_address() const = 0;  // empty: none
};

}  // namespace gatehouse
