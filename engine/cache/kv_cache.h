// The memory behind the block ids of BlockPool: keys and values of every layer of one rank,
// allocated once at start. Owned by the worker; used by the rank's thread. What a block looks like
// inside is the back end's affair.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace gatehouse {

class KvCache {
 public:
  // RESOURCE_EXHAUSTED when the memory cannot be had.
  static absl::StatusOr<KvCache> Create(Backend& backend, const KvShape& shape, int num_layers,
                                        int64_t num_blocks);

  KvLayerView Layer(int layer) const { return {layers_[layer].as<void>(), num_blocks_, shape_}; }
  const KvShape& shape() const { return shape_; }
  int64_t num_blocks() const { return num_blocks_; }

 private:
  KvCache(const KvShape& shape, int64_t num_blocks) : shape_(shape), num_blocks_(num_blocks) {}

  KvShape shape_;
  int64_t num_blocks_;
  std::vector<Buffer> layers_;
};

}  // namespace gatehouse
