#include "engine/model/packed_file.h"

#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "engine/json/json_fields.h"
#include "engine/model/piece_checksum.h"
#include "kernels/base/checksum.h"
#include "kernels/base/status_macros.h"

static_assert(std::endian::native == std::endian::little, "numbers are stored as they lie");

namespace gatehouse {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kMagic = "GHPACKED";
constexpr int32_t kVersion = 1;
constexpr int64_t kAlignment = 4096;
constexpr uint64_t kMaxHeaderBytes = uint64_t{64} << 20;
constexpr double kMaxBytes = 1e15;  // of a file or section; whole numbers of a double end beyond

struct Preamble {
  char magic[8];
  uint64_t header_bytes;
  uint64_t header_checksum;
};
static_assert(sizeof(Preamble) == 24);

int64_t Align(int64_t offset) { return (offset + kAlignment - 1) / kAlignment * kAlignment; }

absl::Status Problem(const std::string& text) { return absl::FailedPreconditionError(text); }
absl::Status SystemProblem(const std::string& text) {
  return Problem(absl::StrFormat("%s (%s)", text, std::generic_category().message(errno)));
}

std::span<std::byte> BytesOf(Preamble& preamble) {
  return std::as_writable_bytes(std::span(&preamble, 1));
}
std::span<const std::byte> BytesOf(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Where each section begins, and at the end where the file does.
std::vector<int64_t> Offsets(int64_t header_bytes, const std::vector<PackedSection>& sections) {
  std::vector<int64_t> offsets = {Align(static_cast<int64_t>(sizeof(Preamble)) + header_bytes)};
  for (const PackedSection& section : sections) {
    offsets.push_back(Align(offsets.back() + section.num_bytes));
  }
  return offsets;
}

std::string Hex(uint64_t checksum) { return absl::StrFormat("%016x", checksum); }

std::string ToJson(const PackedHeader& header) {
  ordered_json files = ordered_json::array(), sections = ordered_json::array();
  for (const FileStamp& stamp : header.checkpoint) {
    files.push_back({{"name", stamp.name},
                     {"bytes", stamp.num_bytes},
                     {"identity", stamp.identity},
                     {"checksum", Hex(stamp.checksum)}});
  }
  for (const PackedSection& section : header.sections) {
    sections.push_back({{"what", section.what},
                        {"bytes", section.num_bytes},
                        {"checksum", Hex(section.checksum)}});
  }
  return ordered_json{{"version", kVersion},
                      {"layout", header.layout},
                      {"expert_format", header.expert_format},
                      {"dense_format", header.dense_format},
                      {"checkpoint", files},
                      {"sections", sections}}
      .dump(-1, ' ', /*ensure_ascii=*/true, ordered_json::error_handler_t::replace);
}

uint64_t ReadHex(JsonFields& fields, const char* key) {
  const std::string text = fields.String(key, std::nullopt);
  uint64_t value = 0;
  if (text.size() != 16 || !absl::SimpleHexAtoi(text, &value)) fields.Refuse(key, "16 digits");
  return value;
}

absl::StatusOr<PackedHeader> ReadHeader(std::string_view text) {
  const std::string place = "header";
  GATEHOUSE_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJsonObject(text, place));
  JsonFields fields(document, place);
  const int32_t version = fields.Int("version", std::nullopt, {0, 1 << 30});
  if (fields.status().ok() && version != kVersion) {
    return Problem(absl::StrFormat("it has version %d, not %d", version, kVersion));
  }
  PackedHeader header{.layout = fields.String("layout", std::nullopt),
                      .expert_format = fields.String("expert_format", std::nullopt),
                      .dense_format = fields.String("dense_format", std::nullopt)};
  const auto num_bytes = [](JsonFields& of) {
    return static_cast<int64_t>(of.Number("bytes", std::nullopt, {0, kMaxBytes}));
  };
  for (JsonFields& file : fields.Objects("checkpoint")) {
    header.checkpoint.push_back({.name = file.String("name", std::nullopt),
                                 .num_bytes = num_bytes(file),
                                 .identity = file.String("identity", std::nullopt),
                                 .checksum = ReadHex(file, "checksum")});
  }
  double total = 0;
  for (JsonFields& section : fields.Objects("sections")) {
    header.sections.push_back({.what = section.String("what", std::nullopt),
                               .num_bytes = num_bytes(section),
                               .checksum = ReadHex(section, "checksum")});
    total += static_cast<double>(header.sections.back().num_bytes);
  }
  GATEHOUSE_RETURN_IF_ERROR(fields.status());
  if (total > kMaxBytes) return Problem("its sections are longer than any file");
  return header;
}

absl::Status Truncated() { return Problem("it is truncated"); }

}  // namespace

absl::StatusOr<PackedFile> PackedFile::Open(const std::string& path) {
  Descriptor file = Descriptor::OpenToRead(path);
  if (!file.is_open()) {
    return errno == ENOENT ? absl::NotFoundError("there is none yet")
                           : SystemProblem("it cannot be opened");
  }
  struct stat found;
  if (fstat(file.number(), &found) != 0 || !S_ISREG(found.st_mode)) {
    return Problem("it is no regular file");
  }
  Preamble preamble;
  const auto file_bytes = static_cast<uint64_t>(found.st_size);
  if (file_bytes < sizeof(preamble)) return Truncated();
  if (!file.ReadAt(BytesOf(preamble), 0)) return SystemProblem("it cannot be read");
  if (std::string_view(preamble.magic, sizeof(preamble.magic)) != kMagic) {
    return Problem("it is no file of packed weights");
  }
  if (preamble.header_bytes > kMaxHeaderBytes) return Problem("its header is damaged");
  if (preamble.header_bytes > file_bytes - sizeof(preamble)) return Truncated();
  std::string text(preamble.header_bytes, '\0');
  if (!file.ReadAt(std::as_writable_bytes(std::span(text)), sizeof(preamble))) {
    return SystemProblem("it cannot be read");
  }
  if (Checksum(BytesOf(text)) != preamble.header_checksum) return Problem("its header is damaged");
  GATEHOUSE_ASSIGN_OR_RETURN(PackedHeader header, ReadHeader(text));
  std::vector<int64_t> offsets =
      Offsets(static_cast<int64_t>(preamble.header_bytes), header.sections);
  if (file_bytes < static_cast<uint64_t>(offsets.back())) return Truncated();
  return PackedFile(std::move(file), std::move(header), std::move(offsets));
}

absl::Status PackedFile::Read(size_t section_idx, ThreadPool& pool, std::span<std::byte> to) const {
  const PackedSection& section = header_.sections[section_idx];
  const std::optional<uint64_t> checksum =
      PieceChecksum(pool, section.num_bytes, [&](int /*thread*/, int64_t offset, int64_t count) {
        const std::span<std::byte> piece = to.subspan(offset, count);
        return file_.ReadAt(piece, offsets_[section_idx] + offset) ? piece : std::span<std::byte>();
      });
  if (!checksum) return Problem("it cannot be read");
  if (*checksum == section.checksum) return absl::OkStatus();
  return Problem(absl::StrFormat("section %d (%s) is damaged", section_idx, section.what));
}

namespace {

// The file under a name of its own until it is whole. One process at a time holds its lock, and
// what a process that died left behind is simply written over.
class UnfinishedFile {
 public:
  static absl::StatusOr<UnfinishedFile> Open(const std::string& path) {
    Descriptor file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
    if (!file.is_open()) return SystemProblem("it cannot be written");
    struct stat locked, named;
    // The lock of a file that was renamed meanwhile is worth nothing: it is the finished one.
    if (flock(file.number(), LOCK_EX | LOCK_NB) != 0 || fstat(file.number(), &locked) != 0 ||
        lstat(path.c_str(), &named) != 0 || locked.st_ino != named.st_ino ||
        locked.st_dev != named.st_dev) {
      return Problem("another process writes it");
    }
    if (!S_ISREG(locked.st_mode)) return Problem("it is no regular file");
    if (ftruncate(file.number(), 0) != 0) return SystemProblem("it cannot be written");
    return UnfinishedFile(path, std::move(file));
  }
  UnfinishedFile(UnfinishedFile&& other) noexcept
      : path_(std::exchange(other.path_, "")), file_(std::move(other.file_)) {}
  ~UnfinishedFile() {
    if (!path_.empty()) unlink(path_.c_str());
  }

  // Room before contents: a full disk is found out at once.
  absl::Status Reserve(int64_t num_bytes) const {
    errno = posix_fallocate(file_.number(), 0, num_bytes);
    return errno == 0 ? absl::OkStatus() : SystemProblem("it cannot be written");
  }
  absl::Status Write(std::span<const std::byte> bytes, int64_t offset) const {
    if (file_.WriteAt(bytes, offset)) return absl::OkStatus();
    return SystemProblem("it cannot be written");
  }
  // On the disk first, then under its name: a crash leaves the old file or the new one.
  absl::Status Finish(const std::string& path) {
    if (fsync(file_.number()) != 0 || rename(path_.c_str(), path.c_str()) != 0) {
      return SystemProblem("it cannot be written");
    }
    path_.clear();
    const std::string dir = std::filesystem::path(path).parent_path().string();
    const Descriptor folder(open(dir.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY));
    if (folder.is_open()) fsync(folder.number());
    return absl::OkStatus();
  }

 private:
  UnfinishedFile(std::string path, Descriptor file)
      : path_(std::move(path)), file_(std::move(file)) {}

  std::string path_;  // empty: finished, or moved away
  Descriptor file_;
};

}  // namespace

absl::Status WritePackedFile(const std::string& path, PackedHeader header,
                             std::span<const std::span<const std::byte>> contents,
                             ThreadPool& pool) {
  GATEHOUSE_ASSIGN_OR_RETURN(UnfinishedFile file, UnfinishedFile::Open(path + ".unfinished"));
  for (size_t i = 0; i < contents.size(); ++i) {
    const auto num_bytes = static_cast<int64_t>(contents[i].size());
    header.sections[i].num_bytes = num_bytes;
    header.sections[i].checksum =
        *PieceChecksum(pool, num_bytes, [&](int /*thread*/, int64_t offset, int64_t count) {
          return contents[i].subspan(offset, count);
        });
  }
  const std::string text = ToJson(header);
  Preamble preamble{.magic = {}, .header_bytes = text.size(), .header_checksum = 0};
  std::copy(kMagic.begin(), kMagic.end(), preamble.magic);
  preamble.header_checksum = Checksum(BytesOf(text));
  const std::vector<int64_t> offsets = Offsets(static_cast<int64_t>(text.size()), header.sections);
  GATEHOUSE_RETURN_IF_ERROR(file.Reserve(offsets.back()));
  GATEHOUSE_RETURN_IF_ERROR(file.Write(BytesOf(preamble), 0));
  GATEHOUSE_RETURN_IF_ERROR(file.Write(BytesOf(text), sizeof(preamble)));
  for (size_t i = 0; i < contents.size(); ++i) {
    GATEHOUSE_RETURN_IF_ERROR(file.Write(contents[i], offsets[i]));
  }
  return file.Finish(path);
}

}  // namespace gatehouse
