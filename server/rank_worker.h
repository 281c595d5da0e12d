// A rank in a process of its own (--role worker): joins the deployment of a first rank, loads the
// model as told, and runs its part of steps until that rank is gone.
//
// Owner: main. Run belongs to one thread, Stop to any.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/base/log.h"
#include "server/server_config.h"

namespace gatehouse {

struct RankWorkerParts {
  const ServerConfig& config;
  std::string version;
  const Logger& logger;
  std::function<absl::StatusOr<Backends>()> make_backends;  // one
};

class RankWorker {
 public:
  // FAILED_PRECONDITION when a file of certificates or of the token cannot be used.
  static absl::StatusOr<std::unique_ptr<RankWorker>> Create(RankWorkerParts parts);
  virtual ~RankWorker() = default;

  // OK: stopped. UNAVAILABLE: the first rank is gone. INVALID_ARGUMENT, UNAUTHENTICATED: it does
  // not let us in. FAILED_PRECONDITION and others: the model cannot be loaded, or is not its.
  virtual absl::Status Run() = 0;
  virtual void Stop() = 0;
};

}  // namespace gatehouse
