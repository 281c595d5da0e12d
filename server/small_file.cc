#include "server/small_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "absl/strings/str_format.h"

namespace gatehouse {

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes) {
  std::ifstream file(path, std::ios::binary);
  std::string text(max_bytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (file.bad() || text.empty()) {
    return absl::FailedPreconditionError(absl::StrFormat("%s: cannot be read or is empty", path));
  }
  if (text.size() > max_bytes) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: more than %u bytes, the limit", path, max_bytes));
  }
  return text;
}

absl::Status WriteAtomically(const std::string& path, const std::string& text) {
  const std::string temporary = absl::StrFormat("%s.%d.tmp", path, getpid());
  {
    std::ofstream file(temporary, std::ios::trunc);
    file << text;
    file.close();
    if (!file) {
      return absl::UnavailableError(absl::StrFormat("%s: cannot be written", path));
    }
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    std::remove(temporary.c_str());
    return absl::UnavailableError(absl::StrFormat("%s: cannot be written", path));
  }
  return absl::OkStatus();
}

std::string FileStamp(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return "";
  return absl::StrFormat("%u:%u:%d:%d.%d", status.st_dev, status.st_ino, status.st_size,
                         status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
}

}  // namespace gatehouse
