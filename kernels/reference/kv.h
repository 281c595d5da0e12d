// Where the reference keeps the key and the value of a position.
#pragma once

#include "kernels/backend.h"

namespace gatehouse {

enum class KeyOrValue { kKey, kValue };

// head_dim floats of one kv head at one position of a sequence.
inline float* KvRow(const KvLayerView& kv, const SequenceSpan& sequence, int64_t position,
                    KeyOrValue which, int kv_head) {
  const KvShape& shape = kv.shape;
  const int64_t block_id = sequence.block_ids[position / shape.block_tokens];
  const int64_t token = position % shape.block_tokens;
  const int64_t plane = (block_id * 2 + (which == KeyOrValue::kValue)) * shape.num_kv_heads;
  return static_cast<float*>(kv.data) +
         ((plane + kv_head) * shape.block_tokens + token) * shape.head_dim;
}

}  // namespace gatehouse
