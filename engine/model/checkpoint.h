// The weights of a model folder: model.safetensors, or model.safetensors.index.json with its
// shards. Every file is mapped and checked whole at Open; tensors are then looked up by name and
// checked against the shape the model expects.
//
// Owner: the model, for as long as a view is in use. Immutable after Open, any thread. Views point
// into the mapped files, at any alignment: read them with WeightView::at or memcpy. A file that is
// truncated after Open is not caught (mapped_file.h).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/safetensors.h"
#include "kernels/tensor.h"

namespace gatehouse {

class Checkpoint {
 public:
  // FAILED_PRECONDITION "<file>: <problem>, expected <what>", one line.
  static absl::StatusOr<Checkpoint> Open(const std::string& model_dir);

  bool Has(std::string_view name) const;
  std::vector<std::string> Names() const;  // ascending
  std::vector<std::string> Files() const;  // paths: the listing first if it holds no tensors itself

  // FAILED_PRECONDITION "<file>: <tensor>: <problem>: got .., expected ..": missing, another shape,
  // a dtype other than F32, BF16, F16.
  // A view of more than two extents has all but the last one as rows.
  absl::StatusOr<WeightView> Tensor(std::string_view name, const std::vector<int64_t>& shape) const;

  // FAILED_PRECONDITION naming the first value of `name` that is infinite or not a number. Reads
  // the whole tensor: cheapest just before it is packed, which needs the same pages.
  absl::Status CheckFinite(std::string_view name) const;

  // The file that holds `name`, or that should.
  const std::string& FileOf(std::string_view name) const;
  void DropPages() const;  // gives resident pages back; views stay valid

 private:
  struct Location {
    int file_idx;
    const StoredTensor* tensor;  // inside files_[file_idx]
  };
  static absl::StatusOr<Checkpoint> OpenShards(const std::string& model_dir,
                                               const std::string& index_path);
  void AddFile(SafetensorsFile file);

  std::string listing_path_;  // the file that lists all tensors, for what is missing
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Location, std::less<>> locations_;
};

// Row-major index of the first value that is not finite, or -1.
int64_t FindNonFinite(const WeightView& view);

}  // namespace gatehouse
