// The first rank's end of a deployment with ranks in other processes: listens for workers, lets in
// those that fit, gives each a slot, and notices who is gone. To the engine it is where the other
// ranks come from.
//
// Owner: main; outlives the engine. Thread-safe once started.
//
//   auto deployment = Deployment::Open(config, version, logger);
//   auto engine = Engine::Create(config.engine, backends, clock, observer, deployment->get());
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/remote_ranks.h"
#include "kernels/base/log.h"
#include "server/server_config.h"

namespace gatehouse {

class Deployment : public RemoteRanks {
 public:
  // UNAVAILABLE when the address cannot be bound, FAILED_PRECONDITION or INVALID_ARGUMENT when a
  // file of certificates or tokens cannot be used.
  static absl::StatusOr<std::unique_ptr<Deployment>> Open(const ServerConfig& config,
                                                          const std::string& version,
                                                          const Logger& logger);
  virtual const std::string& listen_address() const = 0;  // host:port as bound
};

}  // namespace gatehouse
