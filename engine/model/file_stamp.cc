#include "engine/model/file_stamp.h"

#include <sys/stat.h>

#include <cstddef>
#include <ctime>
#include <filesystem>
#include <optional>
#include <span>

#include "absl/strings/str_format.h"
#include "engine/model/descriptor.h"
#include "engine/model/piece_checksum.h"
#include "kernels/base/status_macros.h"

namespace gatehouse {
namespace {

// Longer than the grain of the times of any file system: FAT's is 2 s.
constexpr int64_t kYoungSeconds = 3;

absl::Status CannotRead(const std::string& path) {
  return absl::FailedPreconditionError(absl::StrFormat("%s cannot be read", path));
}

absl::StatusOr<FileStamp> StampFile(const std::string& path) {
  struct stat file;
  if (stat(path.c_str(), &file) != 0) return CannotRead(path);
  FileStamp stamp{.name = std::filesystem::path(path).filename().string(),
                  .num_bytes = file.st_size};
  if (file.st_ctim.tv_sec + kYoungSeconds < std::time(nullptr)) {
    stamp.identity =
        absl::StrFormat("%d:%d:%d.%09d:%d.%09d", file.st_dev, file.st_ino, file.st_mtim.tv_sec,
                        file.st_mtim.tv_nsec, file.st_ctim.tv_sec, file.st_ctim.tv_nsec);
  }
  return stamp;
}

}  // namespace

absl::StatusOr<std::vector<FileStamp>> StampFiles(const std::vector<std::string>& paths) {
  std::vector<FileStamp> stamps;
  for (const std::string& path : paths) {
    GATEHOUSE_ASSIGN_OR_RETURN(FileStamp stamp, StampFile(path));
    stamps.push_back(std::move(stamp));
  }
  return stamps;
}

absl::Status ReadChecksum(const std::string& path, ThreadPool& pool, FileStamp& stamp) {
  const Descriptor file = Descriptor::OpenToRead(path);
  if (!file.is_open()) return CannotRead(path);
  std::vector<std::vector<std::byte>> buffers(pool.num_threads(),
                                              std::vector<std::byte>(kChecksumPiece));
  const std::optional<uint64_t> checksum =
      PieceChecksum(pool, stamp.num_bytes, [&](int thread, int64_t offset, int64_t count) {
        const std::span<std::byte> bytes = std::span(buffers[thread]).first(count);
        return file.ReadAt(bytes, offset) ? bytes : std::span<std::byte>();
      });
  if (!checksum) return CannotRead(path);
  stamp.checksum = *checksum;
  return absl::OkStatus();
}

absl::Status CheckUnchanged(const std::vector<std::string>& paths, ThreadPool& pool,
                            const std::vector<FileStamp>& stamps) {
  GATEHOUSE_ASSIGN_OR_RETURN(std::vector<FileStamp> now, StampFiles(paths));
  if (now.size() != stamps.size()) {
    return absl::FailedPreconditionError(
        absl::StrFormat("the checkpoint has %d files, not %d", now.size(), stamps.size()));
  }
  for (size_t i = 0; i < now.size(); ++i) {
    const FileStamp& was = stamps[i];
    const auto changed = [&] {
      return absl::FailedPreconditionError(absl::StrFormat("%s has changed", now[i].name));
    };
    if (now[i].name != was.name || now[i].num_bytes != was.num_bytes) return changed();
    if (!was.identity.empty() && now[i].identity == was.identity) continue;
    GATEHOUSE_RETURN_IF_ERROR(ReadChecksum(paths[i], pool, now[i]));
    if (now[i].checksum != was.checksum) return changed();
  }
  return absl::OkStatus();
}

}  // namespace gatehouse
