#include "engine/cache/kv_cache.h"

#include <utility>

#include "kernels/base/status_macros.h"

namespace gatehouse {

absl::StatusOr<KvCache> KvCache::Create(Backend& backend, const KvShape& shape, int num_layers,
                                        int64_t num_blocks) {
  KvCache cache(shape, num_blocks);
  const size_t layer_bytes = backend.KvBlockBytes(shape) * static_cast<size_t>(num_blocks);
  for (int layer = 0; layer < num_layers; ++layer) {
    GATEHOUSE_ASSIGN_OR_RETURN(Buffer buffer, backend.Allocate(layer_bytes));
    cache.layers_.push_back(std::move(buffer));
  }
  return cache;
}

}  // namespace gatehouse
