// Reads operators' files again when they change or when somebody asks (SIGHUP). What cannot be used
// is logged and counted, and what was in force stays. Owner: the server, whose watcher alone calls
// it once Start has added the files.
//
//   reloader.Add(ReloadedFile::kTenants, {path}, [this] { return LoadTenants(); });  // loaded
//   before reloader.Check(/*forced=*/false);                                                // each
//   second
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/base/log.h"
#include "server/prometheus_metrics.h"

namespace gatehouse {

class Reloader {
 public:
  using LoadFn = std::function<absl::Status()>;

  // Both outlive the reloader.
  Reloader(PrometheusMetrics& metrics, const Logger& logger) : metrics_(metrics), logger_(logger) {}

  // Loads for the first time, too: the status is that of `load`, and nothing is added if it fails.
  absl::Status Add(ReloadedFile what, std::vector<std::string> paths, LoadFn load);
  // Calls the load functions of files that have changed since they were last called; with `forced`,
  // all of them.
  void Check(bool forced);

 private:
  struct Watched {
    ReloadedFile what;
    std::vector<std::string> paths;
    LoadFn load;
    std::string stamps;  // of all paths, taken before they were read
  };

  PrometheusMetrics& metrics_;
  const Logger& logger_;
  std::vector<Watched> watched_;
};

}  // namespace gatehouse
