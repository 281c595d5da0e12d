// Packed weights kept in a file, so that the next start of a server reads them instead of packing.
// A cache is used only if it was made from the same checkpoint, for the same formats and layout,
// and every section only if its checksum is right; else the model is packed from its checkpoint,
// and the file is written anew.
//
//   PackedCache cache = PackedCache::Open(request, backend);
//   ... = cache.Matrix(rows, cols, format);  // null: pack it, then cache.Add(*packed)
//   PackedCacheReport report = cache.Finish();
//
// Lives while a model is loaded; one thread. What was added outlives it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/file_stamp.h"
#include "engine/model/packed_cache_report.h"
#include "engine/model/packed_file.h"
#include "kernels/backend.h"
#include "kernels/base/thread_pool.h"

namespace gatehouse {

struct PackedCacheRequest {
  std::string dir;                       // of caches; made if its parent is there
  std::string model_name;                // part of the file's name
  std::vector<std::string> model_files;  // paths of all that the packed bytes follow from
  std::string expert_format, dense_format;
};

class PackedCache {
 public:
  static PackedCache Open(const PackedCacheRequest& request, Backend& backend);

  // The next section. RESOURCE_EXHAUSTED when its memory cannot be had.
  absl::StatusOr<std::unique_ptr<PackedMatrix>> Matrix(int64_t num_outputs, int64_t num_inputs,
                                                       WeightFormat format);
  absl::StatusOr<std::unique_ptr<PackedExperts>> Experts(const ExpertsShape& shape,
                                                         WeightFormat format);
  // Each that Matrix or Experts gave out or did not have, in that order.
  void Add(std::span<const std::byte> bytes) { contents_.push_back(bytes); }
  PackedCacheReport Finish();

 private:
  PackedCache(const PackedCacheRequest& request, Backend& backend);
  absl::Status Check();
  absl::Status CheckHeader(const PackedHeader& found);
  absl::Status ReadNext(std::span<std::byte> to);
  absl::StatusOr<std::optional<Buffer>> Next(std::string what, size_t num_bytes);
  absl::Status Save();

  const PackedCacheRequest request_;
  Backend& backend_;
  std::unique_ptr<ThreadPool> pool_;
  std::string path_;
  std::optional<PackedFile> file_;  // absent: nothing more is read from it
  PackedHeader header_;             // of what is loaded
  std::vector<std::span<const std::byte>> contents_;
  PackedCacheReport report_;
};

}  // namespace gatehouse
