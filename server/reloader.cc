#include "server/reloader.h"

#include <utility>

#include "kernels/base/status_macros.h"
#include "server/small_file.h"

namespace gatehouse {
namespace {

std::string StampsOf(const std::vector<std::string>& paths) {
  std::string stamps;
  for (const std::string& path : paths) (stamps += FileStamp(path)) += ' ';
  return stamps;
}

}  // namespace

absl::Status Reloader::Add(ReloadedFile what, std::vector<std::string> paths, LoadFn load) {
  std::string stamps = StampsOf(paths);
  GATEHOUSE_RETURN_IF_ERROR(load());
  watched_.push_back({what, std::move(paths), std::move(load), std::move(stamps)});
  return absl::OkStatus();
}

void Reloader::Check(bool forced) {
  for (Watched& watched : watched_) {
    std::string stamps = StampsOf(watched.paths);
    if (!forced && stamps == watched.stamps) continue;
    watched.stamps = std::move(stamps);
    const absl::Status status = watched.load();
    metrics_.CountReload(watched.what, status.ok());
    if (status.ok()) {
      logger_.Log(LogLevel::kInfo, "reloaded", {{"file", ReloadedFileName(watched.what)}});
    } else {
      logger_.Log(
          LogLevel::kError, "not reloaded, the old content stays in force",
          {{"file", ReloadedFileName(watched.what)}, {"reason", std::string(status.message())}});
    }
  }
}

}  // namespace gatehouse
