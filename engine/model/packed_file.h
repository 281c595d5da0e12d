// The file of packed weights: a header, then the bytes of each section as the back end has them.
//
//   8 bytes   "GHPACKED"
//   8 bytes   little-endian length of the header
//   8 bytes   its checksum
//   header    JSON: version, layout, the formats, the files of the checkpoint, and of each section
//             what it is, its length and its checksum
//   sections  in the order in which a model is loaded, each from a multiple of 4,096 bytes on
//
// Nothing in it is believed before its checksum has been compared. A file is never written in
// place: a reader keeps the one that it opened.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/descriptor.h"
#include "engine/model/file_stamp.h"
#include "kernels/base/thread_pool.h"

namespace gatehouse {

struct PackedSection {
  std::string what;  // "matrix int8 1024 x 512"
  int64_t num_bytes = 0;
  uint64_t checksum = 0;
};
struct PackedHeader {
  std::string layout;  // Backend::packed_layout
  std::string expert_format, dense_format;
  std::vector<FileStamp> checkpoint;
  std::vector<PackedSection> sections;
};

class PackedFile {
 public:
  // NOT_FOUND when there is none; FAILED_PRECONDITION says in a few words what is wrong with it.
  static absl::StatusOr<PackedFile> Open(const std::string& path);

  const PackedHeader& header() const { return header_; }
  // Section `section_idx` into memory of its length. FAILED_PRECONDITION likewise.
  absl::Status Read(size_t section_idx, ThreadPool& pool, std::span<std::byte> to) const;

 private:
  PackedFile(Descriptor file, PackedHeader header, std::vector<int64_t> offsets)
      : file_(std::move(file)), header_(std::move(header)), offsets_(std::move(offsets)) {}

  Descriptor file_;
  PackedHeader header_;
  std::vector<int64_t> offsets_;  // [sections]
};

// Puts a whole file in the place of what may be there, or leaves that as it is: FAILED_PRECONDITION
// says why, one reason being that another process is at it. Fills in the checksums of the header's
// sections, whose bytes are contents[i].
absl::Status WritePackedFile(const std::string& path, PackedHeader header,
                             std::span<const std::span<const std::byte>> contents,
                             ThreadPool& pool);

}  // namespace gatehouse
